"""Print the blocks of every network with a name, as a page of Markdown.

    python scripts/print_blocks.py > docs/blocks.md

takes two minutes and 4 GB of memory: each network is built at its default input size, with
random weights. With names, such as ``resnet50 vgg16``, the page has only these.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import keras

from featx.backbones.blocks import Block, Cut, blocks_of
from featx.backbones.load import named_model
from featx.backbones.registry import Network, find_network, list_backbones
from featx.finetune.unfreeze import choose_unfrozen

OPENING = """\
# The blocks of the networks

A block is what fine-tuning unfreezes as one: a stretch of a network that ends where a shortcut or
the branches of a cell are merged and only the result is still to be read; in networks without such
merges, before the resolution drops; in those that carry several tensors along, where a merge leaves
two or three. Blocks are counted from the top, as `unfreeze=` counts them: `unfreeze=1` trains block
1, `unfreeze=2` blocks 1 and 2, and so on. All below stays frozen and is computed once for
each image, up to the *frontier*, given here by the shapes of its tensors at the default input size.
The frontier may lie within the block, above what has nothing to train: pooling, and batch
normalisations, which stay frozen by default. The layers are the first and the last with weights;
those that Keras numbers (`conv2d_84`) have these names in a process that builds no other network
before. The parameters include the statistics of batch normalisations.

This page is made by `python scripts/print_blocks.py > docs/blocks.md`.
"""
HEADER = "| block | layers | parameters | frontier below |\n|--:|---|--:|---|"


class Row(NamedTuple):
    """What the page tells of a block: itself, and where freezing ends if it is the lowest one."""

    block: Block
    frontier: Cut


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description="Print the blocks of networks as Markdown.")
    parser.add_argument("names", nargs="*", help="of networks; all of them if none is given")
    names = parser.parse_args().names
    networks = [find_network(name) for name in names] or list_backbones()
    found = {network: rows_of(network) for network in networks}
    print(OPENING)
    print(index(found))
    for network, rows in found.items():
        print(f"\n{section(network, rows)}")


def rows_of(network: Network) -> list[Row]:
    """Build a network and find its blocks, the top one first."""
    keras.utils.clear_session()  # it restarts the numbers in automatic names
    shape = (network.input_size, network.input_size, 3)
    model = named_model(network, input_shape=shape, weights=None, params={})
    return [
        Row(block, choose_unfrozen(model, number, batch_norm="frozen", label=network.name).frontier)
        for number, block in enumerate(reversed(blocks_of(model)), start=1)
    ]


def index(found: dict[Network, list[Row]]) -> str:
    """List the networks with their numbers of blocks."""
    links = (f"[{network.name}](#{network.name}) {len(rows)}" for network, rows in found.items())
    return "Networks, and how many blocks they have:\n" + ",\n".join(links) + "."


def section(network: Network, rows: Sequence[Row]) -> str:
    """Describe the blocks of one network."""
    size = f"{network.input_size} × {network.input_size}"
    lines = (line(number, row) for number, row in enumerate(rows, start=1))
    return "\n".join([f"## {network.name}\n", f"Input {size} pixels.\n", HEADER, *lines])


def line(number: int, row: Row) -> str:
    """Describe a block in a line of a table."""
    names = row.block.layers
    layers = " to ".join(f"`{name}`" for name in dict.fromkeys([names[0], names[-1]]))
    return f"| {number} | {layers} | {row.block.n_params:,} | {shapes(row.frontier)} |"


def shapes(cut: Cut) -> str:
    """Write the shapes of the tensors at a cut, without the axis of the samples."""
    return ", ".join(" × ".join(map(str, tensor.shape[1:])) for tensor in cut.tensors)


if __name__ == "__main__":
    main()
