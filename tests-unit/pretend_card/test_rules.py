"""What the pretend card refuses and allows, as a card does."""

from collections.abc import Callable, Iterator

import numpy
import pytest
import torch
from pretend import CardTensor, Machine, pretend_cards

MIB = 1 << 20
functional = torch.nn.functional


@pytest.fixture
def machine() -> Iterator[Machine]:
    with torch.inference_mode(), pretend_cards(2, 64 * MIB) as made:
        yield made


class Values:
    """A host tensor, the same on both cards, and single numbers."""

    def __init__(self) -> None:
        self.host = torch.arange(12.0).reshape(3, 4)
        self.card = self.host.to("cuda")
        self.other = self.host.to("cuda:1")
        self.number, self.card_number = torch.tensor(2.0), torch.tensor(2.0, device="cuda")
        self.image = torch.rand(1, 2, 8, 8).to("cuda")


def assigned(target: torch.Tensor, index: object, value: torch.Tensor) -> torch.Tensor:
    target = target.clone()
    target[index] = value
    return target


def drawn(device: str, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(3, device=device, generator=generator)


REFUSED: dict[str, Callable[[Values], object]] = {
    "host and card": lambda v: v.card + v.host,
    "host and a number of the card": lambda v: v.host + v.card_number,
    "two cards": lambda v: v.card + v.other,
    "writing a host number": lambda v: v.number.clone().add_(v.card_number),
    "joined": lambda v: torch.cat([v.card, v.host]),
    "numbers stacked": lambda v: torch.stack([v.number, v.card_number]),
    "product": lambda v: v.card @ v.host.T,
    "layer": lambda v: functional.linear(v.card, v.host),
    "convolution": lambda v: functional.conv2d(v.image, torch.ones(1, 2, 3, 3)),
    "card index of a host tensor": lambda v: v.host[torch.tensor([0], device="cuda")],
    "host rows under a mask": lambda v: assigned(v.card, torch.tensor([True, False, True]), v.host[:2]),
    "host mask": lambda v: v.card.masked_fill(torch.zeros(3, 4, dtype=torch.bool), 0.0),
    "host condition": lambda v: torch.where(v.host > 3, v.card, v.card),
    "embedding of host indices": lambda v: functional.embedding(torch.tensor([0, 1]), v.card),
    "gather": lambda v: v.card.gather(0, torch.zeros(1, 4, dtype=torch.long)),
    "index_select": lambda v: v.card.index_select(0, torch.tensor([0])),
    "numpy": lambda v: v.card.numpy(),
    "numpy's own way": lambda v: numpy.asarray(v.card),
    "host generator": lambda v: drawn("cuda", torch.Generator()),
    "the process's generator": lambda v: drawn("cuda", torch.manual_seed(0)),
    "card generator on the host": lambda v: drawn("cpu", torch.Generator(device="cuda")),
    "another card's generator": lambda v: drawn("cuda:1", torch.Generator(device="cuda")),
    "filled from a host generator": lambda v: torch.empty(3, device="cuda").normal_(generator=torch.Generator()),
    "compared": lambda v: torch.equal(v.card, v.host),
    "attention with a host mask": lambda v: functional.scaled_dot_product_attention(*[v.image] * 3, attn_mask=torch.zeros(8, 8)),
    "a module left on the host": lambda v: torch.nn.Linear(4, 2)(v.card),
    "page-locking a card's memory": lambda v: v.card.pin_memory(),
    "a card that is not there": lambda v: v.host.to("cuda:2"),
}
ALLOWED: dict[str, Callable[[Values], object]] = {
    "a Python number": lambda v: v.card + 1,
    "a host number": lambda v: v.card * v.number,
    "host number and card number": lambda v: v.number + v.card_number,
    "host index": lambda v: v.card[torch.tensor([0, 2])],
    "host mask as index": lambda v: v.card[torch.tensor([True, False, True])],
    "a host row assigned": lambda v: assigned(v.card, 0, v.host[0]),
    "a host number assigned by index": lambda v: assigned(v.card, torch.tensor([0, 1]), v.number),
    "where with a host number": lambda v: torch.where(v.card > 3, v.card, v.number),
    "to the host, then numpy": lambda v: v.card.cpu().numpy(),
    "card generator": lambda v: drawn("cuda", torch.Generator(device="cuda").manual_seed(1)),
    "like": lambda v: torch.randn_like(v.card),
    "copy_": lambda v: torch.empty(3, 4, device="cuda").copy_(v.host),
    "to another card": lambda v: v.card.to("cuda:1"),
    "interpolate": lambda v: functional.interpolate(v.image, scale_factor=2.0, mode="bilinear"),
    "attention": lambda v: functional.scaled_dot_product_attention(*[v.image] * 3),
    "fft": lambda v: torch.fft.ifftn(torch.fft.fftn(v.card)).real,
    "a module taken along": lambda v: torch.nn.Linear(4, 2).to("cuda")(v.card),
    "page-locking": lambda v: v.host.pin_memory().is_pinned(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_card_refuses_is_refused(machine: Machine, what: str) -> None:
    values = Values()
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[what](values)


@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_card_allows_is_allowed(machine: Machine, what: str) -> None:
    ALLOWED[what](Values())


def test_results_are_the_hosts(machine: Machine) -> None:
    values = Values()
    for compute in (lambda t: t.softmax(-1), lambda t: t @ t.T, lambda t: functional.group_norm(t, 1), lambda t: t[:, 1:3].clone().mul_(2)):
        assert torch.equal(compute(values.card).cpu(), compute(values.host))


def test_views_write_through(machine: Machine) -> None:
    card = torch.zeros(3, 4, device="cuda")
    card.view(-1)[3] = 99
    card[:, :2] += 1
    assert card.tolist() == [[1, 1, 0, 99], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_devices_are_told_as_by_a_card(machine: Machine) -> None:
    assert torch.zeros(1, device="cuda").device == torch.device("cuda:0")
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").device == torch.device("cuda:1")
    card = torch.zeros(2, device="cuda")
    assert torch.zeros_like(card, device="cpu").device.type == "cpu"
    assert card.new_zeros(3).device.type == "cuda"
    parameter = torch.nn.Parameter(card, requires_grad=False)
    assert isinstance(parameter, torch.nn.Parameter) and isinstance(parameter, CardTensor)
    assert torch.cuda.device_count() == 2 and isinstance(torch.Generator(), torch.Generator)


def test_bytes_are_counted_by_living_storages(machine: Machine) -> None:
    card = machine.cards[0]
    large = torch.zeros(MIB, device="cuda")
    assert card.used_bytes() == 4 * MIB
    view = large[:10]
    del large
    assert card.used_bytes() == 4 * MIB, "the view keeps the storage"
    del view
    assert card.used_bytes() == 0
    assert torch.cuda.memory_stats()["reserved_bytes.all.current"] == 4 * MIB == card.capacity_bytes - torch.cuda.mem_get_info()[0]
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info() == (64 * MIB, 64 * MIB)
    assert torch.cuda.max_memory_allocated() == 4 * MIB


def test_nothing_is_left_of_it_afterwards() -> None:
    before = torch.Generator, torch.Tensor.is_pinned, torch.version.cuda, torch.cuda.Stream
    with pretend_cards():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    assert before == (torch.Generator, torch.Tensor.is_pinned, torch.version.cuda, torch.cuda.Stream)
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")
