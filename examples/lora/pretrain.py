"""Train the base on upright digits and write lora_model/base.safetensors: once, by one, for all."""

import torch
from lora_model.net import BASE, AdaptedNet
from lora_model.pictures import upright
from safetensors.torch import save_file

STEPS = 300


def main() -> None:
    """Plain training; the adapters stay out of it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, pictures = AdaptedNet(pretrained=False), upright()
    base = {name: p for name, p in net.named_parameters() if ".base." in name}
    optimiser = torch.optim.Adam(base.values(), lr=0.003)
    labels = torch.tensor(pictures.y)
    for _ in range(STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(pictures.x), labels).backward()
        optimiser.step()
    save_file({name: p.detach().contiguous() for name, p in base.items()}, BASE)
    right = (net(pictures.x).argmax(dim=1) == labels).float().mean()
    print(f"base: {right:.1%} of the upright digits that it learned from")


if __name__ == "__main__":
    main()
