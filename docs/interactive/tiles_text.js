// All words of tiles.html, in English and Chinese.
"use strict";

/** "row 3" or "rows 3–5", of count rows from first on; the same for keys. */
const rangeText = (one, many, first, count) =>
  (count === 1 ? `${one} ${first}` : `${many} ${first}–${first + count - 1}`);
const zhRange = (noun, first, count) => `${noun} ${count === 1 ? first : `${first}–${first + count - 1}`}`;

const TEXT = {
  en: {
    title: "Attention, tile by tile",
    to_error: "Error and bound",
    language: "中文",
    lead: "Eight queries and eight keys, causal. The kernel never holds all scores: it takes a tile of query rows, " +
      "walks over the tiles of keys, and keeps a maximum, a sum and an accumulator for each row. " +
      "All numbers below were traced from the real engine.",
    settings: "Settings", player: "Player", pass: "Pass",
    forward: "Forward", backward: "Backward",
    rows_of_tile: "Rows per tile:", keys_of_tile: "Keys per tile:",
    first: "First step (Home)", back: "Step back (←)", next: "Next step (→)", last: "Last step (End)",
    play: "Play", pause: "Pause", step: "Step",
    position: (n, count) => `Step ${n} of ${count}`,
    keyboard: "Keyboard: ← → one step, Home and End to the ends, Space to play or pause, F and B for the forward and " +
      "the backward pass. Tab reaches every control; on a slider the arrow keys move the slider.",
    source: "Data: <code>attest trace</code> (docs/interactive/make.py). The scores are natural; " +
      "the engine itself works in powers of 2. Its backward pass walks over tiles of queries outside, as the forward " +
      "pass does; on a GPU the loops often change places, and the sums stay the same.",
    map: (visited, skipped) => `Map of the scores: ${visited} tiles are computed, ${skipped} are skipped.`,
    legend_now: "this tile", legend_weight: "weight", legend_masked: "masked",
    legend_skipped: (n) => `skipped (${n})`, legend_event: "rescaled",

    forward_tile: (x) => `<b>${rangeText("Row", "Rows", x.row, x.rows)} meet${x.rows === 1 ? "s" : ""} ` +
      `${rangeText("key", "keys", x.key, x.keys)}.</b> ` +
      (x.kind === "all" ? "No key here is in the future, so nothing is masked. "
        : "The diagonal runs through this tile: what lies in the future is masked. "),
    first_keys: "These are the first keys of these rows, so there is nothing to rescale yet.",
    rescaled: (rows) => `The maximum of ${rows.length === 1 ? "row" : "rows"} ${rows.join(", ")} rises: ` +
      `what l and O hold so far was too large by e<sup>m − m<sub>old</sub></sup>, and is <b>rescaled</b>.`,
    not_rescaled: "No maximum rises: the factors are 1, and l and O only grow.",
    forward_end: (x) => `<b>${rangeText("Row", "Rows", x.row, x.rows)}: done.</b> O is divided by l, once. ` +
      (x.skipped ? `${x.skipped === 1 ? "One tile of keys lies" : `${x.skipped} tiles of keys lie`} wholly in the ` +
        "future and cost nothing." : "No tile of keys could be skipped."),
    backward_tile: (x) => `<b>${rangeText("Row", "Rows", x.row, x.rows)} meet${x.rows === 1 ? "s" : ""} ` +
      `${rangeText("key", "keys", x.key, x.keys)} again.</b> P was not stored: it is computed anew from S and lse. ` +
      "The tile adds its share to dV and dK of these keys and to dQ of these rows.",
    backward_end: (x) => `<b>${rangeText("Row", "Rows", x.row, x.rows)}: dQ is done.</b> ` +
      "It lacked the factor scale, which comes once, at the end.",
    backward_last: "So do dK and dV, to which all rows have now added their shares.",

    scores: "Scores", rows: "What each row keeps", weights: "Weights", accumulator: "Accumulator",
    result: "Result", recomputed: "Weights, computed anew", gradient_v: "Gradient of V",
    gradient_s: "Gradient of the scores", gradient_q: "Gradient of Q", gradient_k: "Gradient of K",
    rows_note: "A factor below 1 rescales; 0 where there was nothing before.",
    delta_note: "δ = row sum of dO ∘ o, once for each row.",
  },
  zh: {
    title: "逐块看注意力",
    to_error: "误差与误差界",
    language: "English",
    lead: "8 个查询、8 个键，带因果掩码。内核从不保存全部分数：它取一块查询行，依次走过各块键，" +
      "每行只保留一个最大值、一个和与一个累加器。下面所有数字都取自真实引擎的运行轨迹。",
    settings: "设置", player: "播放", pass: "阶段",
    forward: "前向", backward: "反向",
    rows_of_tile: "每块的行数：", keys_of_tile: "每块的键数：",
    first: "第一步（Home）", back: "上一步（←）", next: "下一步（→）", last: "最后一步（End）",
    play: "播放", pause: "暂停", step: "步骤",
    position: (n, count) => `第 ${n} 步，共 ${count} 步`,
    keyboard: "键盘：← → 前后一步，Home 与 End 跳到两端，空格播放或暂停，F 与 B 切换前向与反向。" +
      "Tab 可到达每个控件；焦点在滑块上时，方向键移动滑块。",
    source: "数据：<code>attest trace</code>（docs/interactive/make.py）。分数以自然底数给出；引擎内部以 2 为底。" +
      "它的反向与前向一样以查询块为外层循环；GPU 上两层循环常常对调，求得的和相同。",
    map: (visited, skipped) => `分数总图：计算 ${visited} 块，跳过 ${skipped} 块。`,
    legend_now: "当前块", legend_weight: "权重", legend_masked: "被掩去",
    legend_skipped: (n) => `跳过（${n})`, legend_event: "重新缩放",

    forward_tile: (x) => `<b>${zhRange("第", x.row, x.rows)} 行遇到${zhRange("键", x.key, x.keys)}。</b>` +
      (x.kind === "all" ? "这里没有未来的键，无需掩码。" : "对角线穿过这一块：属于未来的部分被掩去。"),
    first_keys: "这是这些行遇到的第一块键，还没有可缩放的内容。",
    rescaled: (rows) => `第 ${rows.join("、")} 行的最大值上升：l 和 O 中已有的内容大了 e<sup>m − m<sub>old</sub></sup> 倍，` +
      "需要<b>重新缩放</b>。",
    not_rescaled: "最大值没有上升：因子都是 1,l 和 O 只做累加。",
    forward_end: (x) => `<b>${zhRange("第", x.row, x.rows)} 行完成。</b>O 在最后除以 l，只除一次。` +
      (x.skipped ? `有 ${x.skipped} 块键完全属于未来，不花任何计算。` : "没有可以跳过的键块。"),
    backward_tile: (x) => `<b>${zhRange("第", x.row, x.rows)} 行再次遇到${zhRange("键", x.key, x.keys)}。</b>` +
      "P 没有保存，由 S 和 lse 重新算出。这一块把自己的份额加到这些键的 dV、dK 和这些行的 dQ 上。",
    backward_end: (x) => `<b>${zhRange("第", x.row, x.rows)} 行的 dQ 完成。</b>还差因子 scale，在最后乘一次。`,
    backward_last: "所有行都已加上自己的份额，dK 和 dV 也随之完成。",

    scores: "分数", rows: "每行保留的量", weights: "权重", accumulator: "累加器",
    result: "结果", recomputed: "重新算出的权重", gradient_v: "V 的梯度",
    gradient_s: "分数的梯度", gradient_q: "Q 的梯度", gradient_k: "K 的梯度",
    rows_note: "小于 1 的因子表示重新缩放；之前没有内容时为 0。",
    delta_note: "δ = dO ∘ o 的行和，每行只算一次。",
  },
};
