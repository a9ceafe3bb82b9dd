// All words of error.html, in English and Chinese.
"use strict";

const TEXT = {
  en: {
    title: "Error and bound",
    to_tiles: "Tile by tile",
    language: "中文",
    lead: "How far off may a correct kernel be? It depends on the formats, on how sums are formed, on the inputs and " +
      "on their length. Pick them, and see the errors of an emulated kernel below the bounds that attest derives.",
    element: "Elements q, k, v, o", weights: "Weights P", sums: "Sums of products", input: "Inputs",
    output: "Output", length: "Keys:",
    names: {
      float32: "float32", float16: "float16", bfloat16: "bfloat16", float8_e4m3fn: "float8 e4m3",
      tensor_core: "tensor core",
      normal: "normal", large: "large scores", spiky: "one key each", "near uniform": "nearly uniform",
      cancelling: "cancelling",
    },
    about_input: {
      normal: "q, k, v have mean 0 and deviation 1. With more keys, weights spread, and errors average out.",
      large: "Scores go into the hundreds: few weights are not 0, and the error of the exponent counts.",
      spiky: "Every query resembles one key, which takes most of the weight.",
      "near uniform": "All weights are nearly equal and v is near 1: sums are long and their terms have one sign.",
      cancelling: "Large terms of alternating sign in q·k and in P V: errors are those of the terms, " +
        "not of the result.",
    },
    about_sums: {
      float32: "Every addition is rounded to float32.",
      float16: "Every addition is rounded to float16: the error of long sums grows with their length.",
      tensor_core: "Sums in float32: blocks of products are aligned to the largest, and what lies below is cut off: " +
        "errors lean to one side. For 8-bit elements only 13 bits are kept.",
    },
    largest: "largest error", spread: "rms error", sigma: "rms error, predicted",
    probable: "probable bound", rigorous: "rigorous bound", ratio: "worst error / bound",
    at_length: (n) => `At ${n} keys, over all elements`,
    story: (x) => `At <b>${x.length}</b> keys the largest error is <b>${x.largest}</b>. ` +
      (x.ratio ? `The element nearest to its own bound uses <b>${x.ratio}</b> of it. ` : "") +
      "A verdict fails above the probable bound, which takes roundings to be independent. " +
      "No kernel that keeps its contract exceeds the rigorous one.",
    chart: "Error against the number of keys, both axes logarithmic.",
    keys: "keys", none: "none",
    kernel: "The kernel: eight rows of one head, width 64 and 16, tiles of 64 keys, normalised at the end " +
      "(FlashAttention-2), scale 1/8. It is emulated: float32 softmax, each rounding where its contract has it.",
    source: "Data: <code>attest_error_curves</code> (tests/emulate/error_curves.cpp). " +
      "The bounds are those of <code>attest verify</code> (docs/bounds.md).",
  },
  zh: {
    title: "误差与误差界",
    to_tiles: "逐块看注意力",
    language: "English",
    lead: "一个正确的内核可以偏离多远？这取决于数据格式、求和方式、输入及其长度。选择它们，" +
      "看模拟内核的误差如何落在 attest 推导出的误差界之下。",
    element: "元素 q、k、v、o", weights: "权重 P", sums: "乘积求和", input: "输入",
    output: "输出", length: "键数：",
    names: {
      float32: "float32", float16: "float16", bfloat16: "bfloat16", float8_e4m3fn: "float8 e4m3",
      tensor_core: "张量核心",
      normal: "正态", large: "大分数", spiky: "各对一键", "near uniform": "近乎均匀", cancelling: "相互抵消",
    },
    about_input: {
      normal: "q、k、v 均值为 0、标准差为 1。键越多，权重越分散，误差越能相互平均。",
      large: "分数达到数百：只有少数权重不为 0，指数的误差起主要作用。",
      spiky: "每个查询都与某一个键相似，大部分权重落在它上面。",
      "near uniform": "所有权重几乎相等，v 接近 1:求和很长，且各项同号。",
      cancelling: "q·k 和 P V 中有符号交替的大项：误差取决于各项，而不是结果。",
    },
    about_sums: {
      float32: "每次加法都舍入到 float32。",
      float16: "每次加法都舍入到 float16:长求和的误差随长度增长。",
      tensor_core: "以 float32 求和：一组乘积对齐到其中最大者，低于其末位的部分被截去：误差偏向一侧。8 位元素只保留 13 位。",
    },
    largest: "最大误差", spread: "均方根误差", sigma: "均方根误差（预测）",
    probable: "概率误差界", rigorous: "严格误差界", ratio: "最坏误差 / 误差界",
    at_length: (n) => `${n} 个键，统计所有元素`,
    story: (x) => `键数为 <b>${x.length}</b> 时，最大误差为 <b>${x.largest}</b>。` +
      (x.ratio ? `最接近自身误差界的元素用去了它的 <b>${x.ratio}</b>。` : "") +
      "超过概率误差界即判为失败；它假定舍入相互独立。遵守契约的内核都不会超过严格误差界。",
    chart: "误差随键数的变化，两轴均为对数。",
    keys: "键数", none: "无",
    kernel: "内核：一个头的 8 行，宽度 64 和 16，每块 64 个键，最后归一化（FlashAttention-2），scale 为 1/8。" +
      "它是模拟的：softmax 用 float32，每次舍入都在契约规定之处。",
    source: "数据：<code>attest_error_curves</code>(tests/emulate/error_curves.cpp）。" +
      "误差界与 <code>attest verify</code> 相同（docs/bounds.md）。",
  },
};
