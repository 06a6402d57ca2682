"""Read a pickle of plain data without executing anything it carries.

A pickle is a program for a machine with a stack: it names callables and has them called. This is such a machine, but it
knows only plain data. Every name that a pickle may use maps to an inert stand-in (unpickle_names.py), never to the real
object. Any other name, and every instruction that builds an object, is refused.

Python's own machine is not used: a few bytes can make it crash, take gigabytes, or run for ever. Here, the number of
steps is bounded, and what a pickle makes is not much larger than its file. Only short strings and numbers can be keys,
so nothing deep is hashed. What was read is only walked through to a known depth.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from fewshot.core.errors import UserError, shown
from fewshot.data.importers.limits import Limits, above
from fewshot.data.importers.unpickle_names import Array, Call, DType, Refused, stand_in, text

_LONGEST_KEY = 4096  # characters
_LONGEST_INTEGER = 32  # bytes
_SPARE = 1 << 20  # bytes that a pickle may copy, whatever its own size


def load(file: BinaryIO, origin: str, size: int, limits: Limits) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or 3: numbers, strings, bytes, lists, tuples, sets, dicts and arrays.

    size: how many bytes `file` has, at most. Keys that Python 2 wrote as bytes become strings, also in dicts directly
    inside. Raises UserError, which names what was refused, or says that the file is truncated or corrupt.
    """
    try:
        content = _Machine(file, size).run(limits.steps)
    except Refused as refusal:
        raise UserError(f"{origin}: {refusal}") from None
    except UserError as error:
        raise UserError(f"{origin}{error}") from None
    except (OSError, KeyboardInterrupt):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything, as any program may
        raise UserError(f"{origin} is truncated or corrupt ({shown(error)}): fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{origin}: a dict was expected, the pickle holds a {type(content).__name__.strip('_')}")
    return {text(key): _finish(value) for key, value in content.items()}


def _finish(value: Any, inner: bool = False) -> Any:
    """Replace stand-ins by their arrays, and bytes as keys by strings; no deeper: a pickle may contain itself."""
    if isinstance(value, dict) and not inner:
        return {text(key): _finish(item, inner=True) for key, item in value.items()}
    return value.array if isinstance(value, Array) else value


class _Machine:
    """The instructions of protocols 0 to 5, as pickletools documents them."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = self._left = size
        self._copied = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # lengths of the stack
        self._memo: dict[int, Any] = {}

    def run(self, steps: int) -> Any:
        """What the program leaves. UserError if it takes more steps."""
        for _ in range(steps):
            code = self._file.read(1)
            self._left -= 1
            if code == pickle.STOP:
                return self._pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise ValueError(f"no instruction {code!r}" if code else "it ends too early")
            instruction(self)
        raise UserError(above(f": the pickle takes more than {steps:,} steps", f"{steps:,}"))

    # ---- the file

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise EOFError("it ends too early")
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("it ends too early")
        self._left -= size
        return data

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self, most: int | None = None) -> bytes:
        line = self._file.readline(self._left if most is None else min(self._left, most + 1))
        if not line.endswith(b"\n"):
            raise EOFError("a line that does not end")
        self._left -= len(line)
        return line[:-1]

    # ---- the stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("nothing is left on its stack")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        value = self._pop()
        self._push(value)
        if not isinstance(value, kind):
            raise ValueError(f"no {kind.__name__} where one should be")
        return value

    def _above_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("no mark on its stack")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    # ---- instructions

    def protocol(self) -> None:
        if (version := self._number("<B")) > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"protocol {version}")

    def frame(self) -> None:
        self._take(8)  # its length, which only saves readers some calls

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def pop_mark(self) -> None:
        self._above_mark()

    def double(self) -> None:
        self._push(self._top(object))

    def integer_line(self) -> None:
        line = self._line(2 * _LONGEST_INTEGER)
        self._push(line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L")))

    def integer(self, form: str) -> None:
        size = self._number(form)
        if not 0 <= size <= _LONGEST_INTEGER:
            raise Refused(f"holds an integer of {size:,} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def string_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self._push(codecs.escape_decode(line[1:-1])[0])

    def text(self, form: str) -> None:
        self._push(self._take(self._number(form)).decode("utf-8", "surrogatepass"))

    def to_list(self) -> None:
        self._push(self._above_mark())

    def to_tuple(self) -> None:
        self._push(tuple(self._above_mark()))

    def tuple_of(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def to_dict(self) -> None:
        values = self._above_mark()
        self._push({})
        self._fill(values)

    def to_frozen_set(self) -> None:
        self._push(frozenset(map(_key, self._above_mark())))

    def append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def extend(self) -> None:
        values = self._above_mark()
        self._top(list).extend(values)

    def add(self) -> None:
        values = self._above_mark()
        self._top(set).update(map(_key, values))

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._fill([key, value])

    def set_items(self) -> None:
        self._fill(self._above_mark())

    def _fill(self, values: list[Any]) -> None:
        self._top(dict).update(zip(map(_key, values[::2]), values[1::2], strict=True))

    def get(self, number: int) -> None:
        if number not in self._memo:
            raise ValueError("it refers to what it did not make")
        self._push(self._memo[number])

    def put(self, number: int) -> None:
        self._memo[number] = self._top(object)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def name_lines(self) -> None:
        self._push(stand_in(self._line().decode("utf-8"), self._line().decode("utf-8")))

    def name(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._push(stand_in(module, name))

    def call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Call) or not isinstance(arguments, tuple):
            raise Refused("calls what is no function")
        result = function.function(*arguments)
        if isinstance(result, bytes):
            self._copied += len(result)
            if self._copied > self._size + _SPARE:
                raise Refused("copies more bytes than it has")
        self._push(result)

    def set_state(self) -> None:
        state = self._pop()
        target = self._top(object)
        if not isinstance(target, (Array, DType)) or not isinstance(state, tuple):
            raise Refused(f"sets attributes of a {type(target).__name__.strip('_')}")
        target.set_state(state)


def _key(value: Any) -> Any:
    """A key, if it can be compared at once."""
    if not isinstance(value, (str, bytes, int, float, type(None))):
        raise Refused(f"has a {type(value).__name__.strip('_')} for a key")
    if isinstance(value, (str, bytes)) and len(value) > _LONGEST_KEY:
        raise Refused(f"has a key of {len(value):,} characters")
    return value


def _refuses(what: str) -> Callable[[_Machine], None]:
    def refuse(machine: _Machine) -> None:
        raise Refused(what)

    return refuse


def _pushes(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine._push(make(machine))


def _names_class(machine: _Machine) -> None:
    module, name = machine._line(), machine._line()
    raise Refused(f"asks for {shown(module.decode('latin1'))}.{shown(name.decode('latin1'))}")


_BUILDS, _OUTSIDE = _refuses("builds objects"), _refuses("refers to an object outside of it")

_INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _Machine.protocol, pickle.FRAME: _Machine.frame,
    pickle.MARK: _Machine.mark, pickle.POP: _Machine.pop, pickle.DUP: _Machine.double,
    pickle.POP_MARK: _Machine.pop_mark,
    pickle.NONE: _pushes(lambda m: None), pickle.NEWTRUE: _pushes(lambda m: True),
    pickle.NEWFALSE: _pushes(lambda m: False),
    pickle.INT: _Machine.integer_line, pickle.LONG: _Machine.integer_line,
    pickle.BININT: _pushes(lambda m: m._number("<i")), pickle.BININT1: _pushes(lambda m: m._number("<B")),
    pickle.BININT2: _pushes(lambda m: m._number("<H")),
    pickle.LONG1: lambda m: m.integer("<B"), pickle.LONG4: lambda m: m.integer("<i"),
    pickle.FLOAT: _pushes(lambda m: float(m._line(_LONGEST_INTEGER))),
    pickle.BINFLOAT: _pushes(lambda m: m._number(">d")),
    pickle.STRING: _Machine.string_line, pickle.BINSTRING: _pushes(lambda m: m._take(m._number("<i"))),
    pickle.SHORT_BINSTRING: _pushes(lambda m: m._take(m._number("<B"))),
    pickle.SHORT_BINBYTES: _pushes(lambda m: m._take(m._number("<B"))),
    pickle.BINBYTES: _pushes(lambda m: m._take(m._number("<I"))),
    pickle.BINBYTES8: _pushes(lambda m: m._take(m._number("<Q"))),
    pickle.BYTEARRAY8: _pushes(lambda m: m._take(m._number("<Q"))),
    pickle.UNICODE: _pushes(lambda m: m._line().decode("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: lambda m: m.text("<B"), pickle.BINUNICODE: lambda m: m.text("<I"),
    pickle.BINUNICODE8: lambda m: m.text("<Q"),
    pickle.EMPTY_LIST: _pushes(lambda m: []), pickle.EMPTY_DICT: _pushes(lambda m: {}),
    pickle.EMPTY_TUPLE: _pushes(lambda m: ()), pickle.EMPTY_SET: _pushes(lambda m: set()),
    pickle.LIST: _Machine.to_list, pickle.TUPLE: _Machine.to_tuple, pickle.DICT: _Machine.to_dict,
    pickle.TUPLE1: lambda m: m.tuple_of(1), pickle.TUPLE2: lambda m: m.tuple_of(2),
    pickle.TUPLE3: lambda m: m.tuple_of(3),
    pickle.FROZENSET: _Machine.to_frozen_set, pickle.APPEND: _Machine.append, pickle.APPENDS: _Machine.extend,
    pickle.ADDITEMS: _Machine.add, pickle.SETITEM: _Machine.set_item, pickle.SETITEMS: _Machine.set_items,
    pickle.GET: lambda m: m.get(int(m._line(_LONGEST_INTEGER))), pickle.BINGET: lambda m: m.get(m._number("<B")),
    pickle.LONG_BINGET: lambda m: m.get(m._number("<I")),
    pickle.PUT: lambda m: m.put(int(m._line(_LONGEST_INTEGER))), pickle.BINPUT: lambda m: m.put(m._number("<B")),
    pickle.LONG_BINPUT: lambda m: m.put(m._number("<I")), pickle.MEMOIZE: _Machine.memoize,
    pickle.GLOBAL: _Machine.name_lines, pickle.STACK_GLOBAL: _Machine.name, pickle.INST: _names_class,
    pickle.REDUCE: _Machine.call, pickle.BUILD: _Machine.set_state,
    pickle.OBJ: _BUILDS, pickle.NEWOBJ: _BUILDS, pickle.NEWOBJ_EX: _BUILDS,
    pickle.EXT1: _BUILDS, pickle.EXT2: _BUILDS, pickle.EXT4: _BUILDS,
    pickle.PERSID: _OUTSIDE, pickle.BINPERSID: _OUTSIDE,
    pickle.NEXT_BUFFER: _OUTSIDE, pickle.READONLY_BUFFER: _OUTSIDE,
}  # fmt: skip
