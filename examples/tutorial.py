# %% [markdown]
# # From a network of your own to a number in a report
#
# A Brevitas network and a training loop, as you have them; then training under bit errors, accuracy with an interval, a
# bundle that proves the exported graph, and a campaign with a page to hand in. Run it beside `my_network.py`, in any
# folder that may be written: `python tutorial.py`. It takes about two minutes on two cores.

# %%
import subprocess
from pathlib import Path

import torch
from my_network import digits, network
from torch import nn

import hwfault as hf
from hwfault.train import TrainConfig

torch.manual_seed(0)
data = digits()


def train(model: nn.Module, epochs: int, faults: hf.BitFlips | None = None) -> None:
    """An ordinary loop; where faults are given, every step sees others."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    driver = None if faults is None else hf.FaultDriver(model, faults, seed=1)
    for epoch in range(1, epochs + 1):
        for step, part in enumerate(torch.randperm(len(data.train_x)).split(64)):
            if driver is not None:
                driver.train_step(epoch, step)
            loss = nn.functional.cross_entropy(model(data.train_x[part]), data.train_y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if driver is not None:
        driver.remove()
    model.eval()


# %% [markdown]
# ## What can be struck
#
# Sites are the places where the network holds integers: every quantizer of inputs, weights, biases and activations.

# %%
clean = network()
train(clean, epochs=20)
for site in hf.sites(clean, data.train_x[:1]):
    print(f"{site.name:20} {site.kind:10} {site.bit_width} bits, {site.shape}")

# %% [markdown]
# ## Accuracy under bit errors
#
# Each seed is a trial with faults of its own. The interval is of the mean over seeds, on these images.

# %%
faults = hf.BitFlips(probability=0.01)
for rate in (0.001, 0.01):
    found = hf.evaluate(clean, data.test_x, data.test_y, hf.BitFlips(probability=rate), seeds=range(20))
    low, high = found.told.ends
    print(f"trained clean, bit error rate {rate:g}: {found.mean:.1%} ({low:.1%} to {high:.1%})")

# %% [markdown]
# ## Training under them
#
# The network that was trained clean goes on for some epochs in which every step sees other faults.

# %%
hardened = network()
hardened.load_state_dict(clean.state_dict())
train(hardened, epochs=20, faults=faults)
found = hf.evaluate(hardened, data.test_x, data.test_y, faults, seeds=range(20))
low, high = found.told.ends
print(f"trained under faults, bit error rate 0.01: {found.mean:.1%} ({low:.1%} to {high:.1%})")

# %% [markdown]
# ## A file that says what it holds
#
# The checkpoint names the network's function and the data. Nothing in it is run: commands are told again whose code to
# trust.

# %%
config = TrainConfig(network="my_network:network", data="my_network:digits")
hf.save("hardened.safetensors", hardened, config)
OWN = ["--network", "my_network:network", "--data", "my_network:digits"]


def hwfault(*words: str) -> None:
    """Runs a command as in a shell."""
    print("$ hwfault", *words)
    subprocess.run(["hwfault", *words], check=True)


# %% [markdown]
# ## The proof
#
# The bundle holds the graph as QONNX, clean and with its faults, and what PyTorch made of real images at every site.
# Replaying it needs neither PyTorch nor this code: onnxruntime has to come to the very same integers. What lies behind
# the last quantizer are sums of floats, which two engines add up in another order; `--accept outputs` lets their last
# digit pass.

# %%
hwfault("export", "hardened.safetensors", *OWN, "--bundle", "--ber", "0.01", "--out", "bundle.zip")
hwfault("replay", "bundle.zip", "--html", "replay.html", "--accept", "outputs")

# %% [markdown]
# ## The number for the report
#
# A study asks its questions; the campaign answers each with an interval that holds however long it runs, and keeps
# every trial.

# %%
Path("study.yaml").write_text(
    """
network: hardened.safetensors
questions:
  memories: {sweep: {ber: [1.0e-3, 1.0e-2]}}          # how often is an answer wrong, and nobody notices?
  one_bit: {flips: single, sites: {kind: weight}, stop: {max_trials: 2000}}
outcomes: [top1, due]
stop: {relative: 0.2, max_trials: 160}
"""
)
hwfault("campaign", "run", "study.yaml", "--out", "study", *OWN)
print("the page to hand in: study/report.html")
