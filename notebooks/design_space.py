# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Design space and hardware
#
# Two questions: which bits are worth their cost, on one machine; and which machine suits the bits. `stripes_sim`
# answers what things cost, `pareto` sorts them. Neither trains anything, and no images are needed before the last part.
#
# ## What a policy costs
#
# ResNet-18 is traced without computing a number. Then it is priced with 4 bits everywhere.

# %%
# %matplotlib inline
from torchvision.models import resnet18

import stripes_sim

layers = stripes_sim.trace(resnet18(), input_shape=(3, 224, 224))
result = stripes_sim.Stripes().run(layers, 4)
print(f"{len(layers)} layers, {sum(layer.macs for layer in layers) / 1e9:.2f} billion multiply-accumulates")
print(f"{result.cycles:,.0f} cycles, {result.energy_pj / 1e6:,.0f} uJ")

# %% [markdown]
# Which layers wait for the memory, and not for the array? Points below the slope do.

# %%
stripes_sim.plot_roofline(result, bits=(2, 8))

# %% [markdown]
# ## Which machine
#
# 64 machines with two policies each, as one table; the line joins those that no other beats in area and energy.

# %%
import pareto

grid = {
    "tiles": (4, 8, 16, 32),
    "rows": (8, 16),
    "columns": (8, 16),
    "weight_buffer_bytes": (2**18, 2**20, 2**22, 2**24),
}
machines = stripes_sim.explore(
    layers, {"4 bits": 4, "8 bits": dict.fromkeys((layer.name for layer in layers), 8)}, grid
)
efficient = pareto.frontier(machines, sense={"area_mm2": "min", "energy_pj": "min"})
print(f"{len(machines)} rows, {len(efficient)} efficient")
efficient[["tiles", "rows", "columns", "weight_buffer_bytes", "policy", "area_mm2", "energy_pj", "bound"]].head(8)

# %%
stripes_sim.plot_exploration(machines, efficient=efficient)

# %% [markdown]
# ## Which bits
#
# Now with accuracy. A small network for handwritten digits is trained for a few epochs, and every one of its 625
# policies of 2, 3, 4, 5 or 8 bits is measured on the held-out images: rounded, not trained again. That ranks policies;
# networks that are trained for their bits are better, above all with 2 and 3.

# %%
import torch
import torch.nn.functional as F

import waveq
from waveq.zoo import build, load_data

torch.manual_seed(0)
data = load_data("digits", validation=0.3)
model = build("digitsnet", num_classes=10, in_channels=1, input_size=8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for _epoch in range(8):
    for rows in torch.randperm(len(data.train)).split(32):
        images, labels = data.train.batch(rows)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

evaluator = waveq.PolicyEvaluator(model.eval(), data.loader("validation"))
space = pareto.DesignSpace(dict.fromkeys(evaluator.names, (2, 3, 4, 5, 8)))
small = stripes_sim.trace(model, input_shape=(1, 8, 8))
costs = stripes_sim.cost_table(small, stripes_sim.Stripes(), bits=(2, 3, 4, 5, 8))

policies = space.policies()
frame = space.frame().assign(accuracy=100 * evaluator.accuracy(policies), **costs.score(policies))
front = pareto.frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
front.tail(6)

# %%
pareto.plot(frame, front)

# %% [markdown]
# ## Without measuring all of them
#
# 625 policies are quickly measured; 5 choices for each of 20 layers are not. If losses add up over layers, 17 measured
# policies are enough for a guess at the frontier. How good is it here? The energy budget is a third of the range.

# %%
losses = pareto.measured_losses(dict.fromkeys(space.names, 8), evaluator.accuracy, space)
guessed = pareto.additive_frontier(costs.by_layer("energy_pj"), losses)
budget = frame.energy_pj.quantile(0.3)
best = pareto.within_budget(guessed, budget)
chosen = {name: int(best[name]) for name in space.names}
measured = frame[(frame[list(chosen)] == list(chosen.values())).all(axis=1)].accuracy.item()
print(
    f"guessed {chosen}: {measured:.2f} %; the best within {budget / 1e6:.2f} uJ has "
    f"{frame[frame.energy_pj <= budget].accuracy.max():.2f} %"
)
