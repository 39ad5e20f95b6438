# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Your model, your loop
#
# A small transformer that reads a handwritten digit row by row, trained in a loop of one's own: the five lines of
# WaveQ, a look at what happened, and the same in Lightning.

# %%
# %matplotlib inline
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from waveq.zoo import load_data


class Rows(nn.Module):
    """The eight rows of an image are eight tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.block = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32 * 8, 10)

    def forward(self, images):
        return self.head(self.block(self.embed(images[:, 0])).flatten(1))


torch.manual_seed(0)
data = load_data("digits", validation=0.3)
batches = [data.train.batch(rows) for _ in range(6) for rows in torch.randperm(len(data.train)).split(32)]
images, labels = data.validation.tensors()
model = Rows()


def accuracy(network):
    network.eval()
    with torch.no_grad():
        right = (network(images).argmax(1) == labels).float().mean().item()
    network.train()
    return f"{100 * right:.1f} %"


# %% [markdown]
# ## The loop
#
# A plain loop, with WaveQ's two calls. `wq` is None for the float network.


# %%
def train(network, batches, wq=None):
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)  # after attach: learned scales are parameters too
    for x, y in batches:
        loss = F.cross_entropy(network(x), y)
        if wq is not None:
            loss = loss + wq.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if wq is not None:
            wq.step()


train(model, batches)
print("float:", accuracy(model))

# %% [markdown]
# ## Learn the bits, then train with them
#
# A short search finds the bits. `rewind` gives the float weights back, and the rest of the steps train them with those
# bits.

# %%
search, rest = batches[:60], batches[60:]
wq = waveq.attach(model, schedule="search", total_steps=len(search), target={"mean_bits": 3.5})
train(model, search, wq)
learning = wq.history()

wq = waveq.rewind(wq, model, total_steps=len(rest))
train(model, rest, wq)
print("quantised:", accuracy(model), wq.bits())

# %%
waveq.plot_learning(learning)

# %% [markdown]
# What is quantised, and what not:

# %%
print(wq.summary())

# %% [markdown]
# ## Ship it
#
# `finalize` leaves plain layers, whose weights are on their grids: integers times a scale, which `waveq.export` writes
# for ONNX Runtime, Hugging Face, torchao or a C compiler ([export](../export.md)).

# %%
wq.finalize()
policy = wq.policy()
policy.save("policy.json")
print("finalised:", accuracy(model), policy)
found = waveq.integers(model, policy)["head"]
print(f"head: codes {found.codes.min()} to {found.codes.max()}, scale {found.scale.item():.4f}")

# %% [markdown]
# ## The same in Lightning
#
# The module is an ordinary one; a callback does the rest.

# %%
import logging
import warnings

import lightning
from waveq.integrations.lightning import WaveQCallback

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # torch's, of a line of Lightning's


class Module(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, _index):
        x, y = batch
        return F.cross_entropy(self.network(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


module = Module(Rows())
wave = WaveQCallback(network="network", bits=4)  # attaches in setup, before the optimizer is built
trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[wave],
)
trainer.fit(module, torch.utils.data.DataLoader(batches[:100], batch_size=None))
wave.wq.finalize()
print("4 bits, from scratch, 100 steps:", accuracy(module.network))
