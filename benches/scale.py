"""What a queue of removals takes: ResNet-50 with 1.28 million retained images on H200s, by the model of docs/SCALE.md.

    python3 benches/scale.py [--forward-us 278] [--images 1281167] [--parameters 25557032] [--link-gb 360] ..

Every input is an option, with the value that docs/SCALE.md states and where it comes from. Nothing here was measured on a GPU.
"""

import argparse
import math

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
    parser.add_argument("--latency-us", default=30.0, **number, help="of an all-reduce, microseconds")
    parser.add_argument("--removals", type=int, default=1000, help="requests of one sample that come in an hour")
    return parser.parse_args()


def epochs(asked, forgotten):
    """Passes over the retained images of a batch, as `hold::epochs` counts them: of the proxy, and of the hold."""
    beside = math.ceil(asked.images / MINI_BATCH) * min(MINI_BATCH, forgotten) / asked.images
    return asked.proxy_epochs, asked.hold_epochs * (1 + beside)


def seconds(asked, gpus, forgotten):
    """Of a batch: a step of training is three forward passes; gradients are summed over the GPUs after each mini-batch."""
    proxy, hold = epochs(asked, forgotten)
    compute = (proxy + hold) * asked.images * 3 * asked.forward_us * 1e-6 / gpus
    steps = asked.proxy_epochs * math.ceil(asked.images / asked.proxy_batch)
    steps += asked.hold_epochs * math.ceil(asked.images / MINI_BATCH)
    ring = 2 * (gpus - 1) / gpus * 4 * asked.parameters / (asked.link_gb * 1e9)
    return compute, steps * (ring + asked.latency_us * 1e-6) if gpus > 1 else 0.0


def main():
    asked = options()
    print("| GPUs | samples of a batch | epochs | computing, s | gradients between GPUs, s | a batch, min | removals an hour |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gpus in [1, 8]:
        for forgotten in [1, 10, 64, 100, 1000]:
            compute, between = seconds(asked, gpus, forgotten)
            total = compute + between
            print(
                f"| {gpus} | {forgotten:,} | {sum(epochs(asked, forgotten)):.1f} | {compute:,.0f} | {between:,.0f} "
                f"| {total / 60:.1f} | {3600 / total * forgotten:,.1f} |"
            )
    print()
    for gpus in [1, 8]:
        total = sum(seconds(asked, gpus, MINI_BATCH))
        count = math.ceil(asked.removals * total / 3600)
        print(
            f"{asked.removals:,} removals an hour on {gpus} x H200: batches of {count:,} or more, each {total / 60:.0f} min; a request "
            f"waits for the batch before it and for its own, at most {2 * total / 60:.0f} min"
        )


if __name__ == "__main__":
    main()
