# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Digits, end to end
#
# A small network learns handwritten digits, then how many bits each of its layers needs. What that costs is priced on a
# bit-serial accelerator, all 256 policies are measured for comparison, and the network ends as integers in a file. This
# is `waveq demo` in Python, with a third of its training so that it takes seconds.
#
# ## Train, and learn the bits
#
# A recipe is a validated config. The run folder receives everything, and the same call goes on where it was stopped.

# %%
# %matplotlib inline
from waveq.codesign import codesign
from waveq.codesign.protocol import Protocol
from waveq.train import load_recipe

config = load_recipe("digits", run_dir="run", validation=0.3, pretrain_epochs=6, epochs=6, threads=1, progress=False)
design = codesign(config, choices=(2, 3, 4, 8), protocol=Protocol(finetune_epochs=0))
print(
    f"float {100 * design.training.float_test_accuracy:.2f} % on the test images, "
    f"with {design.training.mean_bits:.2f} bits on average {100 * design.training.test_accuracy:.2f} %"
)
design.training.bits

# %% [markdown]
# ## What it costs
#
# On Stripes with serial weights, layer by layer. The last lines are part of the answer: what is not counted, and what
# is assumed.

# %%
print(design.score)

# %% [markdown]
# ## Where it lies among all policies
#
# Every policy with 2, 3, 4 or 8 bits a layer, rounded and measured on the 434 held-out images, where one image is 0.23
# points. The learned policy is measured like all others here, so that its accuracy is not that of the trained network
# above.

# %%
import pareto

placement = design.placement
pareto.plot(placement.frame, placement.front, mark={"learned": design.run.policy})

# %%
print(
    f"on the frontier: {placement.efficient}; the best policy of at most the same energy has "
    f"{placement.accuracy_gap:.2f} points more"
)
placement.front

# %% [markdown]
# ## One bit less, one bit more
#
# Points of accuracy, layer by layer, with the standard error of a paired bootstrap.

# %%
design.sensitivity

# %% [markdown]
# ## Integers in a file
#
# The final network's weights are `scale * (code + offset)`, exactly. The file is compared with torch before it appears.

# %%
import waveq
from waveq.zoo import load_data

model = design.run.final_network()
images, labels = load_data("digits").test().tensors()
print(waveq.export(model, design.run.policy, "digits.onnx", to="onnx", sample=images[:8]))
waveq.integers(model, design.run.policy)["fc2"].codes[:2]
