"""Each transform against NumPy in float64; composition; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewshot
from fewshot import model as models
from fewshot import transforms
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.episodes import Protocol, frozen
from fewshot.evaluation.score import score
from fewshot.transforms import Chain, Transform


def embeddings(images=60, features=7, seed=0):
    """float32 (images, features), correlated and off centre."""
    noise = np.random.default_rng(seed)
    mixed = noise.standard_normal((images, features)) @ noise.standard_normal((features, features))
    return torch.from_numpy((mixed + np.arange(features)).astype(np.float32))


def center(z, base):
    return z - base.mean(0)


def l2(z, base):
    return z / np.sqrt((z**2).sum(1, keepdims=True))


def power(z, base, beta=0.5):
    return np.sign(z) * np.abs(z) ** beta


def whiten(z, base, eps=0.01):
    covariance = np.cov(base, rowvar=False)
    shrunk = (1 - eps) * covariance + eps * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunk)
    return (z - base.mean(0)) @ (vectors / np.sqrt(values) @ vectors.T)


ORACLES = {
    "none": lambda z, base: z,
    "center": center,
    "l2": l2,
    "power": power,
    "power:beta=0.8": lambda z, base: power(z, base, 0.8),
    "whiten": whiten,
    "whiten:eps=0.3": lambda z, base: whiten(z, base, 0.3),
    "center+l2": lambda z, base: l2(center(z, base), base),
    "l2+center": lambda z, base: center(l2(z, base), l2(base, base)),
    "power+whiten+l2": lambda z, base: l2(whiten(power(z, base), power(base, base)), base),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", ORACLES)
def test_equals_numpy(spec, dtype):
    z, base = embeddings(20, seed=1).to(dtype), embeddings().to(dtype)
    transform = transforms.build(spec).fit(base)
    made = transform(z)
    assert made.dtype == dtype
    expected = ORACLES[spec](z.double().numpy(), base.double().numpy())
    tolerance = 2e-3 if "power" in spec else 1e-9 if dtype == torch.float64 else 2e-5  # power is approximate near 0
    assert np.abs(made.numpy() - expected).max() <= tolerance * np.abs(expected).max()


def test_every_transform_has_its_oracle():
    assert set(transforms.FAMILY.names()) <= set(ORACLES)


def test_whitened_base_images_are_uncorrelated():
    base = embeddings(500)
    made = transforms.build("whiten:eps=1e-6").fit(base)(base)
    assert np.abs(np.cov(made.numpy(), rowvar=False) - np.eye(7)).max() < 1e-2
    assert made.mean(0).abs().max() < 1e-4


def test_whitening_fewer_images_than_features_is_finite():
    base = embeddings(4, 30)
    assert transforms.build("whiten").fit(base)(embeddings(9, 30, seed=1)).isfinite().all()


def test_zeros_stay_zeros_and_gradients_are_finite():
    z = torch.tensor([[0.0, 0.0], [0.0, 4.0], [1e25, 0.0]], requires_grad=True)
    assert torch.equal(transforms.build("l2")(z).detach(), torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    made = transforms.build("power+l2")(z)
    assert made[0].abs().max() == 0 and made[1].tolist() == [0, 1]
    (made * torch.tensor([1.0, 2.0])).sum().backward()
    assert z.grad[1].isfinite().all() and z.grad.isfinite().all()


def test_only_those_that_need_no_fit_can_be_trained_through():
    for spec in ("none", "l2", "power:beta=0.5+l2"):
        transforms.check_trainable(transforms.build(spec))
        assert not transforms.build(spec).fitted
    for spec, named in (("center+l2", "Center"), ("power+whiten", "Whiten")):
        assert transforms.build(spec).fitted
        with pytest.raises(UserError, match=f"transform {named} is fitted on the base classes"):
            transforms.check_trainable(transforms.build(spec))


def test_fitting_again_forgets_and_leaves_no_state_behind():
    transform = transforms.build("center+whiten+l2")
    z = embeddings(5, seed=1)
    expected = transform.fit(embeddings(seed=2))(z)
    transform.fit(embeddings(seed=3))
    assert not torch.equal(transform(z), expected)
    assert torch.equal(transform.fit(embeddings(seed=2))(z), expected)
    assert not transform.state_dict()


class ByClass(Transform):
    """A user's own: the mean of the class means."""

    fitted = True

    def learn(self, base, labels):
        self.mean = torch.stack([base[labels == label].mean(0) for label in labels.unique()]).mean(0)

    def forward(self, z):
        return z - self.mean


def test_a_users_own_is_given_the_labels():
    base, labels = torch.tensor([[0.0], [0.0], [0.0], [4.0]]), torch.tensor([0, 0, 0, 1])
    transform = transforms.build(f"{__name__}.ByClass+power:beta=1").fit(base, labels)
    assert transform(torch.tensor([[5.0]])).item() == pytest.approx(3)


@pytest.mark.parametrize(
    "spec, complaint",
    [
        ("centre", "unknown transform 'centre'. Did you mean 'center'?"),
        ("power:beta=0", "power:beta=0.0 is not a positive number"),
        ("whiten:eps=0", "whiten:eps=0.0 is not above 0"),
        ("l2:beta=1", "unknown option of transform 'l2'"),
        ("center@3+l2", "a transform has no sites"),
        ("l2+", "cannot read"),
    ],
)
def test_wrong_specs_are_named(spec, complaint):
    with pytest.raises(UserError, match=complaint.replace("?", r"\?")):
        transforms.build(spec)


def test_wrong_use_is_named():
    with pytest.raises(UserError, match="transform Center is not fitted"):
        transforms.build("center")(embeddings())
    with pytest.raises(UserError, match="fitted on embeddings of 7 features, and these have 3"):
        transforms.build("whiten").fit(embeddings())(embeddings(5, 3))
    with pytest.raises(UserError, match="two images or more"):
        transforms.build("center").fit(embeddings(1))
    with pytest.raises(UserError, match="all alike"):
        transforms.build("whiten").fit(torch.ones(5, 3))
    with pytest.raises(UserError, match="9000 features are too long"):
        transforms.build("whiten").fit(torch.randn(2, 9000))
    with pytest.raises(UserError, match="declares fitted: implement learn"):
        type("Bad", (Transform,), {"fitted": True})


class Neighbours(Transform):
    """Smooths embeddings over neighbouring images, which come class by class."""

    def forward(self, z):
        return z + z.roll(1, dims=-2) + z.roll(-1, dims=-2)


class OfAll(Transform):
    """Subtracts the mean of all images that it is given at once."""

    def forward(self, z):
        return z - z.mean(-2, keepdim=True)


class Noisy(Transform):
    """Draws random numbers, but looks at no other image."""

    def forward(self, z):
        return z + 0.1 * torch.randn_like(z)


@pytest.mark.parametrize("name", ["Neighbours", "OfAll"])
def test_one_that_looks_at_other_images_is_refused(name):
    with pytest.raises(UserError, match=f"{name}: what it makes of an image depends on the other images beside it"):
        transforms.build(f"{__name__}.{name}+l2")


def test_one_that_draws_random_numbers_is_not_and_none_are_taken_from_the_training():
    before = torch.get_rng_state()
    assert transforms.build(f"{__name__}.Noisy").fitted is False
    assert torch.equal(before, torch.get_rng_state())


def test_whitening_takes_all_base_images_into_account():
    """More than are summed at once, and the last ones differ from the first, as classes do."""
    base = embeddings(5000).double() + torch.linspace(0, 20, 5000).double()[:, None]
    z = embeddings(20, seed=1).double()
    expected = whiten(z.numpy(), base.numpy())
    made = transforms.build("whiten").fit(base)(z).numpy()
    assert np.abs(made - expected).max() <= 1e-9 * np.abs(expected).max()


def test_short_embeddings_are_made_length_1_and_small_features_keep_their_power():
    z = embeddings(20)
    for factor in (1e-9, 1e-4, 1e9):
        made = transforms.build("l2")(z * factor).numpy()
        assert np.abs(made - l2(z.double().numpy(), None)).max() < 1e-6
    sizes = np.geomspace(1.001e-3, 1e3, 200)
    x = np.concatenate([sizes, -sizes])[:, None]
    made = transforms.build("power")(torch.from_numpy(x)).numpy()
    assert np.abs(made / power(x, None) - 1).max() < 1e-3, "as its docstring says"
    zero = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    transforms.build("power")(zero).sum().backward()
    assert zero.grad.item() == pytest.approx(1e3)  # 1e-6 ** -0.5


class FittedOfAll(OfAll):
    """Learns from the base classes, but looks at all other images all the same."""

    fitted = True

    def learn(self, base, labels):
        self.mean = base.mean(0)

    def forward(self, z):
        return super().forward(z - self.mean)


class NearestImages(Transform):
    """Each image is averaged with those near it."""

    def forward(self, z):
        return (-torch.cdist(z, z).square()).softmax(-1) @ z


class OfLength8(OfAll):
    """Works on embeddings of length 8 alone."""

    def forward(self, z):
        return super().forward(z) @ torch.eye(8)


@pytest.mark.parametrize("spec", ["FittedOfAll", "NearestImages", "l2+NearestImages", "center+OfAll"])
def test_one_that_is_fitted_or_looks_at_near_images_is_refused_too(spec):
    name = spec.rpartition("+")[2]
    with pytest.raises(UserError, match=f"transform {name}: what it makes of an image depends on the other images"):
        transforms.build(spec.replace(name, f"{__name__}.{name}"))


def test_one_that_is_an_object_or_fits_one_length_alone_is_refused_where_it_is_applied():
    """The embeddings' length is known when it is built for a network, and once there are embeddings."""
    given = {"labels": torch.arange(6).repeat_interleave(10), "shots": 1, "queries": 2, "episodes": 10}
    with pytest.raises(UserError, match="transform OfAll: what it makes"):
        fewshot.benchmark(torch.randn(60, 8), **given, transform=OfAll())
    spec = f"{__name__}.OfLength8"
    assert transforms.build(spec)(torch.ones(3, 8)).shape == (3, 8), "of length 64 nothing can be asked"
    with pytest.raises(UserError, match="transform OfLength8: what it makes"):
        transforms.build(spec, features=8)
    with pytest.raises(UserError, match="transform OfLength8: what it makes"):
        fewshot.benchmark(torch.randn(60, 8), **given, transform=spec)


class Normed(Transform):
    """Batch norm: by its own statistics in evaluation, by the batch's in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(256, affine=False)

    def forward(self, z):
        return self.norm(z.flatten(0, -2)).view(z.shape)


def test_evaluation_applies_it_in_evaluation_mode():
    """Batch norm that has learned nothing is then the identity, but for its epsilon."""
    glyphs, model = fewshot.open_dataset("glyphs"), models.build("conv4", "none", "proto", 32, (0.5,) * 3, (0.25,) * 3)
    wanted = [frozen.standard_tasks(glyphs, "test", Protocol(5, 1, 15), 50)]
    compute = Compute(torch.device("cpu"), "fp32")
    (plain,) = score(model, wanted, compute)
    (normed,) = score(model, wanted, compute, transform=transforms.build(f"{__name__}.Normed", 256))
    assert (plain == normed).mean() > 0.99


def test_one_within_others_is_asked_too():
    class Own(Chain):
        pass

    for chain in (Chain([Chain([OfAll()])]), Own([OfAll()])):
        with pytest.raises(UserError, match="OfAll: what it makes of an image depends"):
            transforms.check_alone(chain, torch.empty(0, 8))
