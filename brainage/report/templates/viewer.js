// The viewer of a page: NiiVue on volumes that lie in the page itself. Without it the page is complete.
window.addEventListener("load", async () => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const box = byId("viewer"), canvas = byId("gl"), place = byId("place");
  box.hidden = false;
  const give_up = (reason) => {
    canvas.parentElement.hidden = true;
    box.querySelector(".viewer-controls").hidden = true;
    box.querySelectorAll(".legend").forEach((legend) => { legend.hidden = true; });
    place.textContent = reason + " The pictures above and the table below show the same.";
    box.dataset.state = "unavailable";
  };
  const probe = document.createElement("canvas").getContext("webgl2");
  if (!probe || typeof DecompressionStream === "undefined") {
    give_up("The interactive viewer needs WebGL 2, which this browser does not offer here.");
    return;
  }
  try {
    const config = JSON.parse(byId("viewer-config").textContent);
    const packed = Uint8Array.from(atob(byId("niivue").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const source = await new Response(stream).arrayBuffer();
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = address; script.onload = done; script.onerror = failed;
      document.head.append(script);
    });
    URL.revokeObjectURL(address);

    const viewer = new niivue.Niivue({
      backColor: [0.043, 0.055, 0.075, 1], isRadiologicalConvention: true, dragAndDropEnabled: false,
      crosshairColor: [1, 0.82, 0.4, 0.9], crosshairWidth: 0.5, isCornerOrientationText: true, sagittalNoseLeft: true, fontMinPx: 16, isNearestInterpolation: false, loadingText: "",
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER, logLevel: "error",
    });
    await viewer.attachToCanvas(canvas);
    // The first entry is what NiiVue gives to values below the threshold: transparent.
    viewer.addColormap("older", { R: [247, 247, 239, 202, 103], G: [190, 190, 115, 0, 0], B: [170, 170, 90, 32, 31], A: [0, 90, 180, 225, 255], I: [0, 1, 90, 180, 255] });
    viewer.addColormap("younger", { R: [190, 190, 103, 33, 5], G: [215, 215, 169, 102, 48], B: [230, 230, 207, 172, 97], A: [0, 90, 180, 225, 255], I: [0, 1, 90, 180, 255] });
    const volume = (name, options) => niivue.NVImage.loadFromBase64({ base64: byId("volume-" + name).textContent, name: name + ".nii.gz", ...options });
    viewer.addVolume(await volume("scan", { colormap: "gray", cal_min: 0, cal_max: 255 }));
    const years = await volume("contribution", { colormap: "older", colormapNegative: "younger", cal_min: config.limit / 4000, cal_max: config.limit, opacity: 0.6 });
    viewer.addVolume(years);
    const expert = await volume("expert", { opacity: 0 });
    expert.setColormapLabel(config.experts);
    viewer.addVolume(expert);
    const regions = byId("volume-regions") ? await volume("regions", {}) : null;
    viewer.setInterpolation(false);

    const chosen = (name) => box.querySelector("input[name=" + name + "]:checked").value;
    const opacity = byId("opacity"), threshold = byId("threshold");
    const redraw = () => {
      const map = chosen("map"), strength = Number(opacity.value);
      byId("opacity-value").textContent = Math.round(100 * strength) + " %";
      byId("threshold-value").textContent = Number(threshold.value).toFixed(2) + " years";
      threshold.disabled = map !== "contribution";
      // Just above zero, which is what lies outside the brain.
      years.cal_min = Math.min(Math.max(Number(threshold.value), config.limit / 4000), 0.999 * config.limit);
      viewer.setOpacity(1, map === "contribution" ? strength : 0);
      viewer.setOpacity(2, map === "expert" ? strength : 0);
      viewer.updateGLVolume();
      box.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.for !== map; });
    };
    const views = { multi: viewer.sliceTypeMultiplanar, axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal, sagittal: viewer.sliceTypeSagittal };
    box.querySelectorAll("input[name=map]").forEach((input) => input.addEventListener("change", redraw));
    box.querySelectorAll("input[name=view]").forEach((input) => input.addEventListener("change", () => viewer.setSliceType(views[chosen("view")])));
    opacity.addEventListener("input", redraw);
    threshold.addEventListener("input", redraw);

    const value = (image, mm) => { const at = image.mm2vox(mm); return image.getValue(at[0], at[1], at[2]); };
    const text = (number, digits) => (number < 0 ? "\u2212" : "+") + Math.abs(number).toFixed(digits);
    const tell = (mm) => {
      const m = config.to_mni, mni = [0, 1, 2].map((row) => m[row][0] * mm[0] + m[row][1] * mm[1] + m[row][2] * mm[2] + m[row][3]);
      const said = [];
      const region = regions ? config.regions[Math.round(value(regions, mm)) - 1] : undefined;
      said.push(region || "outside the atlas");
      const used = config.expert_names[Math.round(value(expert, mm)) - 1];
      if (used) { said.push(text(value(years, mm), 2) + " years from this block", "expert: " + used); }
      said.push("MNI " + mni.map((x) => Math.round(x)).join(", ") + " mm");
      place.textContent = said.join(" \u00b7 ");
    };
    viewer.onLocationChange = (where) => tell(where.mm);
    const steps = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) { return; }
      event.preventDefault();
      event.stopImmediatePropagation();
      viewer.moveCrosshairInVox(...step);
    }, true);
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
    redraw();
    tell(viewer.frac2mm(viewer.scene.crosshairPos));
    box.dataset.state = "ready";
  } catch (error) {
    give_up("The interactive viewer could not be started (" + (error && error.message ? error.message : "unknown reason") + ").");
  }
});
