const packed = Uint8Array.from(atob("LIBRARY"), (sign) => sign.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(unpacked).text().then((library) => {
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  document.querySelectorAll("figure script").forEach(draw);
});

const DARK = matchMedia("(prefers-color-scheme: dark)");

function draw(source) {
  const figure = source.closest("figure");
  const box = document.createElement("div");
  box.className = "charts";
  const plots = JSON.parse(source.textContent).map((panel) => {
    const place = document.createElement("div");
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", panel.title);
    box.append(place);
    return [place, panel];
  });
  figure.prepend(box);
  figure.classList.add("drawn");
  const group = "group" + Math.random();
  const charts = plots.map(([place, panel]) => {
    const chart = echarts.init(place, null, { renderer: "svg" });
    chart.group = group;
    const show = () => chart.setOption(option(panel), true);
    show();
    DARK.addEventListener("change", show);
    new ResizeObserver(() => chart.resize()).observe(place);
    return chart;
  });
  echarts.connect(charts);
}

function option(panel) {
  const [ink, soft, line, paper] = ["--ink", "--soft", "--line", "--paper"].map((name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name));
  const style = { color: soft, fontSize: 12 };
  const axis = (log) => ({
    type: log ? "log" : "value",
    nameLocation: "middle",
    nameTextStyle: style,
    axisLabel: { ...style, hideOverlap: true, formatter: short },
    axisLine: { onZero: false, lineStyle: { color: soft } },
    splitLine: { lineStyle: { color: line } },
  });
  const named = panel.lines.filter((each) => each.label && each.points.length);
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    title: { left: 0, text: panel.title, textStyle: { color: ink, fontSize: 14 } },
    legend: { type: "scroll", top: 26, left: 0, icon: "roundRect", itemWidth: 18, itemHeight: 3, textStyle: { color: ink }, data: named.map((each) => each.label) },
    grid: { left: 64, right: 16, top: 60, bottom: 44 },
    xAxis: { ...axis(panel.log[0]), name: panel.x, nameGap: 26, min: "dataMin", max: "dataMax" },
    yAxis: { ...axis(panel.log[1]), name: panel.y, nameGap: 46, scale: panel.low === null },
    tooltip: {
      trigger: "axis",
      confine: true,
      backgroundColor: paper,
      borderColor: line,
      textStyle: { color: ink, fontSize: 12 },
      axisPointer: { type: "line" },
      order: "valueDesc",
      valueFormatter: (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(5))) : "-"),
    },
    toolbox: { right: 4, feature: { dataZoom: { yAxisIndex: "none" }, restore: {} }, iconStyle: { borderColor: soft } },
    series: panel.lines.map((each) => ({
      name: each.label,
      type: "line",
      showSymbol: false,
      tooltip: { show: Boolean(each.label) },
      data: each.points.map(([x, y]) => [x, panel.log[1] && !(y > 0) ? null : y]),
      lineStyle: { color: shade(each.colour), width: each.width, type: each.dashes.length ? each.dashes : "solid" },
      itemStyle: { color: shade(each.colour) },
    })),
  };
}

function shade(colour) {
  if (!DARK.matches) return colour;
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return Math.max(r, g, b) > 190 ? colour : `color-mix(in srgb, ${colour} 55%, white)`;
}

function short(value) {
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) return value.toExponential(0);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}
