// The chosen policy: its values, the bits of each layer as bars, and the file that the button gives.
// A policy is {label, bits, values}: bits in the order of data.layers, or null; values by column.
let chosen = data.policy;
const mean = values => values && values.reduce((sum, value) => sum + value, 0) / values.length;

const shownBits = bars(byId("bits"), "bits of each layer of the chosen policy", "bits", () => ({
  names: data.layers,
  series: [{ name: "bits", variable: "mark-0", values: chosen?.bits ?? data.layers.map(() => null) }],
  marks: chosen !== data.policy ? data.policy?.bits : undefined,
}), { numbers: true });

function show(policy) {
  chosen = policy;
  const average = mean(policy.bits);
  const values = Object.entries(policy.values).map(([name, value]) => `${data.labels[name] ?? name}: ${words(value)}`);
  byId("chosen-name").textContent = policy.label;
  byId("chosen-values").textContent = [...values, ...(average ? [`mean bits: ${words(average, 3)}`] : [])].join(" · ") +
    (policy !== data.policy && data.policy?.bits ? ` · line across a bar: ${data.policy.label}` : "");
  byId("download").disabled = !policy.bits;
  byId("bits").hidden = !policy.bits;
  shownBits.redraw();
  document.dispatchEvent(new Event("chosen"));  // a page may show more of it
}

// {layer: bits}, or, where the page knows which fields a policy file has, that file.
function policyFile(policy) {
  const file = structuredClone(data.file ?? {});
  data.layers.forEach((name, layer) => {
    const [field, key] = data.fields?.[layer] ?? [null, name];
    (field ? file[field] ??= {} : file)[key] = policy.bits[layer];
  });
  return JSON.stringify(file, null, 2) + "\n";
}

byId("download").addEventListener("click", () => {
  const link = element("a", "", { download: "policy.json" });
  link.href = URL.createObjectURL(new Blob([policyFile(chosen)], { type: "application/json" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
if (chosen) show(chosen);
