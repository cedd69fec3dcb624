"""What a queue of removals takes: ResNet-50 with 1.28 million retained images on H200s, by the model of docs/SCALE.md.

    python3 benches/scale.py [--forward-us 278] [--images 1281167] [--parameters 25557032] [--link-gb 360] [--net-gb 50] ..
    python3 benches/scale.py --check

Every input is an option, with the value that docs/SCALE.md states and where it comes from. Nothing here was measured on a GPU.
--check compares what the formulas of docs/SCALE.md say of exchanges with what examples/ranks.rs measured.
"""

import argparse
import math

CLUSTERS = [(1, 1), (1, 8), (64, 8)]  # nodes, and GPUs of each
MINI_BATCH = 64  # retained samples of a mini-batch of a hold, and the most forgotten ones (src/hold.rs)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = {"type": float}
    parser.add_argument("--images", type=int, default=1281167, help="retained images")
    parser.add_argument("--parameters", type=int, default=25557032)
    parser.add_argument("--forward-us", default=278.0, **number, help="a forward pass of an image, microseconds")
    parser.add_argument("--proxy-epochs", type=int, default=4)
    parser.add_argument("--hold-epochs", type=int, default=4)
    parser.add_argument("--proxy-batch", type=int, default=256, help="images of a mini-batch of the proxy's training")
    parser.add_argument("--link-gb", default=360.0, **number, help="GB/s of an all-reduce between GPUs of a node")
    parser.add_argument("--latency-us", default=30.0, **number, help="of an all-reduce in a node, microseconds")
    parser.add_argument("--net-gb", default=50.0, **number, help="GB/s of each GPU's link to other nodes")
    parser.add_argument("--net-latency-us", default=60.0, **number, help="of an all-reduce between nodes, microseconds")
    parser.add_argument("--host-gb", default=20.0, **number, help="GB/s of a GPU's way to the host's memory and to another process there")
    parser.add_argument("--check", action="store_true", help="compare the formulas of exchanges with what was measured")
    parser.add_argument("--removals", type=int, default=1000, help="requests of one sample that come in an hour")
    return parser.parse_args()


def epochs(asked, forgotten):
    """Passes over the retained images of a batch, as `hold::epochs` counts them: of the proxy, and of the hold."""
    beside = math.ceil(asked.images / MINI_BATCH) * min(MINI_BATCH, forgotten) / asked.images
    return asked.proxy_epochs, asked.hold_epochs * (1 + beside)


def all_reduce(asked, nodes, of_node):
    """Seconds to sum gradients over all GPUs: within each node every GPU sums its part, the parts are summed between nodes, each GPU
    over a link of its own, and go to all of the node."""
    size = 4 * asked.parameters
    within = 2 * (of_node - 1) / of_node * size / (asked.link_gb * 1e9) + (asked.latency_us * 1e-6 if of_node > 1 else 0)
    between = 2 * (nodes - 1) / nodes * size / of_node / (asked.net_gb * 1e9) + (asked.net_latency_us * 1e-6 if nodes > 1 else 0)
    return within + between


def received(ranks, lanes, values, last):
    """Bytes that a rank receives for a sum over lanes whose result has `last` bytes a value (docs/SCALE.md)."""
    return 4 * lanes * values * (ranks - 1) / ranks**2 + last * values * (ranks - 1) / ranks


def through_host(asked, gpus):
    """Seconds to sum gradients as scrubjay does: lanes are read back, exchanged in the host's memory, and the sum is written."""
    lanes, size = 8, 4 * asked.parameters
    moved = size * lanes / gpus + received(gpus, lanes, asked.parameters, 4) + size
    return moved / (asked.host_gb * 1e9)


def seconds(asked, nodes, of_node, forgotten):
    """Of a batch: a step of training is three forward passes; gradients are summed over the GPUs after each mini-batch. A mini-batch
    has no more GPUs than images."""
    proxy, hold = epochs(asked, forgotten)
    busy = [min(nodes * of_node, asked.proxy_batch), min(nodes * of_node, MINI_BATCH + min(MINI_BATCH, forgotten))]
    compute = (proxy / busy[0] + hold / busy[1]) * asked.images * 3 * asked.forward_us * 1e-6
    steps = asked.proxy_epochs * math.ceil(asked.images / asked.proxy_batch)
    steps += asked.hold_epochs * math.ceil(asked.images / MINI_BATCH)
    return compute, steps * all_reduce(asked, nodes, of_node)


def check():
    """The formulas against examples/ranks.rs on 2 ranks: 20 products and a gradient of 54,000 values, and 10 steps of ResNet-20 with 19
    batch norms of 688 channels together."""
    mib = 1 << 20
    products = 21 * received(2, 16, 54_000, 8) / mib
    steps = 10 * (received(2, 16, 272_474, 4) + 32 * 16 * 688 / 2) / mib
    for what, found, measured in [
        ("products, MiB", products, 21.5),
        ("products, exchanges", 21 * 2 + 1, 43),
        ("training, MiB", steps, 48.2),
        ("training, exchanges", 10 * (19 * 3 + 3), 600),
    ]:
        print(f"{what}: {found:.1f} by the formula, {measured} measured")
        assert abs(found / measured - 1) < 0.02, what


def main():
    asked = options()
    if asked.check:
        return check()
    print("| nodes x GPUs | samples of a batch | epochs | computing, s | gradients between GPUs, s | a batch, min | removals an hour |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for nodes, of_node in CLUSTERS:
        for forgotten in [1, 10, 64, 100, 1000]:
            compute, between = seconds(asked, nodes, of_node, forgotten)
            total = compute + between
            print(
                f"| {nodes} x {of_node} | {forgotten:,} | {sum(epochs(asked, forgotten)):.1f} | {compute:,.0f} | {between:,.0f} "
                f"| {total / 60:.1f} | {3600 / total * forgotten:,.1f} |"
            )
    print()
    for nodes, of_node in CLUSTERS:
        total = sum(seconds(asked, nodes, of_node, MINI_BATCH))
        count = math.ceil(asked.removals * total / 3600)
        print(
            f"{asked.removals:,} removals an hour on {nodes} x {of_node} H200: batches of {count:,} or more, each {total / 60:.0f} min; a "
            f"request waits for the batch before it and for its own, at most {2 * total / 60:.0f} min"
        )
    print()
    for nodes, of_node in CLUSTERS[1:]:
        print(f"a sum of gradients on {nodes} x {of_node}: {all_reduce(asked, nodes, of_node) * 1e3:.2f} ms by an all-reduce", end="")
        print(f", {through_host(asked, of_node) * 1e3:.1f} ms of lanes through the host" if nodes == 1 else "")


if __name__ == "__main__":
    main()
