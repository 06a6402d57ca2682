"""Reports: tables, the leaderboard. They read run folders and write what people look at."""
