// Reads an attention case: spec, shapes and values have to fit together.
#include "verify/ops/attention/case.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

AttentionCase::AttentionCase(const Case& c) : case_(c), extents_(c) {
  read_spec();
  read_shapes();
  check_outputs();
  read_sequences();
  check_values();
}

void AttentionCase::read_spec() {
  KeyReader keys(case_, "spec", case_.spec);
  spec.causal = keys.choice<Causal>(
      "causal",
      {{"none", Causal::none}, {"top_left", Causal::top_left}, {"bottom_right", Causal::bottom_right}});
  spec.scale = keys.number("scale");
  layout_ = read_layout(keys);
  spec.window_left = keys.integer("window_left", -1);
  spec.window_right = keys.integer("window_right", -1);
  spec.softcap = keys.number("softcap", 0);
  spec.empty_row = keys.choice<EmptyRow>(
      "empty_row", {{"zero", EmptyRow::zero}, {"nan", EmptyRow::nan}, {"mean_v", EmptyRow::mean_v}},
      EmptyRow::zero);
  spec.alibi = keys.choice<Alibi>("alibi", {{"distance", Alibi::distance}, {"position", Alibi::position}},
                                  Alibi::distance);
  lse_unit = keys.choice<double>("lse_base", {{"e", 1.0}, {"2", std::numbers::log2e}}, 1.0);
  lse_empty = keys.choice<double>("lse_empty", {{"-inf", -infinity}, {"+inf", infinity}}, -infinity);
  if (merges_heads(layout_)) {
    for (const auto& [key, symbol] : {std::pair{"heads_q", "Hq"}, std::pair{"heads_kv", "Hkv"}}) {
      const Index heads = keys.integer(key, 0);
      if (heads < 1) {
        throw InvalidCase(
            case_.object("spec") + " attribute " + key + " is " +
            (keys.has(key) ? std::to_string(heads) : "missing") +
            "; layouts bsm and sbm merge the heads into the last axis and need it to be at least 1");
      }
      extents_.bind(symbol, heads, std::string("spec attribute ") + key);
    }
  }
  keys.finish();

  const auto reject = [&](const std::string& key, const std::string& found, const std::string& expected) {
    throw InvalidCase(case_.object("spec") + " attribute " + key + " is " + found + "; " + expected +
                      " is expected");
  };
  for (const auto& [key, window] :
       {std::pair{"window_left", spec.window_left}, std::pair{"window_right", spec.window_right}}) {
    if (window < -1) reject(key, std::to_string(window), "-1 (all keys) or more");
  }
  if (spec.softcap < 0) reject("softcap", exact_text(spec.softcap), "0 (off) or more");
}

void AttentionCase::read_shapes() {
  const bool packed = layout_ == Layout::thd;
  const std::string q_axis = packed ? "Tq" : "Sq", k_axis = packed ? "Tk" : "Sk";
  const auto unify = [&](const std::string& group, const std::string& name, const std::string& h,
                         const std::string& s, const std::string& width) {
    const auto& tensors = group == "in" ? case_.in : case_.out;
    if (const auto it = tensors.find(name); it != tensors.end()) {
      extents_.unify(extents_pattern(layout_, "B", h, s, width), it->second, group + "/" + name);
    }
  };
  unify("in", "q", "Hq", q_axis, "D");
  unify("in", "k", "Hkv", k_axis, "D");
  unify("in", "v", "Hkv", k_axis, "E");
  if (extents_["Hq"] % extents_["Hkv"] != 0) {
    throw InvalidCase(case_.object("in/k") + " has Hkv = " + std::to_string(extents_["Hkv"]) +
                      " heads, /in/q has Hq = " + std::to_string(extents_["Hq"]) +
                      "; Hq must be a multiple of Hkv (docs/dump_format.md#heads)");
  }
  unify("in", "past_k", "Hkv", "Sp", "D");
  unify("in", "past_v", "Hkv", "Sp", "E");
  unify("in", "do", "Hq", q_axis, "E");
  unify("out", "o", "Hq", q_axis, "E");
  unify("out", "dq", "Hq", q_axis, "D");
  unify("out", "dk", "Hkv", k_axis, "D");
  unify("out", "dv", "Hkv", k_axis, "E");

  const Index batch = packed ? 1 : extents_["B"];
  sizes_q_ = {batch, extents_["Hq"], extents_[q_axis], extents_["D"]};
  sizes_k_ = {batch, extents_["Hkv"], extents_[k_axis], extents_["D"]};
  sizes_v_ = {batch, extents_["Hkv"], extents_[k_axis], extents_["E"]};
  past_ = extents_.has("Sp") ? extents_["Sp"] : case_.past;

  if (packed) {
    for (const std::string name : {"mask", "bias", "past_k", "past_v", "kv_lengths"}) {
      if (case_.input(name)) throw InvalidCase(case_.object("in/" + name) + " cannot be given in layout thd");
    }
  } else {
    for (const std::string name : {"cu_seqlens_q", "cu_seqlens_k"}) {
      if (case_.input(name))
        throw InvalidCase(case_.object("in/" + name) + " is given, but the layout is not thd");
    }
  }
  if ((case_.input("past_k") != nullptr) != (case_.input("past_v") != nullptr)) {
    throw InvalidCase(case_.object("in/past_k") + " and in/past_v must be given together");
  }
  if (const Tensor* sink = case_.input("sink")) extents_.unify("Hq", *sink, "in/sink");
  if (const Tensor* slopes = case_.input("alibi_slopes")) {
    extents_.unify(slopes->shape.size() == 2 ? "B Hq" : "Hq", *slopes, "in/alibi_slopes");
  } else if (spec.alibi == Alibi::position) {
    throw InvalidCase(case_.object("in/alibi_slopes") + " is missing; alibi = position needs it");
  }
  if (const Tensor* lengths = case_.input("kv_lengths")) extents_.unify("B", *lengths, "in/kv_lengths");

  const std::vector<Index> full = {sizes_q_.b, sizes_q_.h, sizes_q_.s,
                                   (case_.key.empty() ? past_ : 0) + sizes_k_.s};
  for (const std::string name : {"mask", "bias"}) {
    const Tensor* tensor = case_.input(name);
    if (!tensor) continue;
    const std::size_t rank = tensor->shape.size();
    bool fits = rank <= 4;
    for (std::size_t axis = 0; fits && axis < rank; ++axis) {
      const Index extent = tensor->shape[rank - 1 - axis];
      fits = extent == 1 || extent == full[3 - axis];
    }
    if (!fits) {
      throw InvalidCase(case_.object("in/" + name) + " has shape " + shape_text(tensor->shape) +
                        ", which does not broadcast to [B, Hq, Sq, Sp + Sk] = " + shape_text(full));
    }
  }
}

void AttentionCase::check_outputs() {
  const auto needs = [&](const std::string& output, const std::string& needed) {
    if (case_.out.contains(output) && !case_.in.contains(needed)) {
      throw InvalidCase(case_.object("out/" + output) + " is given, but in/" + needed + " is missing");
    }
  };
  for (const std::string gradient : {"dq", "dk", "dv", "dbias", "dsink"}) needs(gradient, "do");
  needs("dbias", "bias");
  needs("dsink", "sink");
  for (const auto& [name, tensor] : case_.out) {
    const std::string path = "out/" + name;
    if (name == "lse" || name == "m" || name == "l") row_order(tensor, path);
    if (name == "s" || name == "p") {
      if (layout_ == Layout::thd) throw InvalidCase(case_.object(path) + " cannot be given in layout thd");
      const std::vector<Index> full = {sizes_q_.b, sizes_q_.h, sizes_q_.s, past_ + sizes_k_.s};
      if (tensor.shape != full) {
        throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor.shape) +
                          "; [B, Hq, Sq, Sp + Sk] = " + shape_text(full) + " is expected");
      }
    }
    if (name == "dbias" && tensor.shape != case_.input("bias")->shape) {
      throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor.shape) + ", in/bias has " +
                        shape_text(case_.input("bias")->shape) + "; they must be equal");
    }
    if (name == "dsink") extents_.unify("Hq", tensor, path);
  }
}

std::string_view AttentionCase::row_order(const Tensor& tensor, const std::string& path) const {
  const bool may_repeat = path != "out/lse";
  const auto shape_in = [&](std::string_view order) {
    std::vector<Index> shape;
    for (const char axis : order)
      shape.push_back(axis == 'b' ? sizes_q_.b : axis == 'h' ? sizes_q_.h : sizes_q_.s);
    return shape;
  };
  for (const std::string_view order : {row_axis_order(layout_), axis_order(layout_)}) {
    std::vector<Index> shape = shape_in(order);
    if (tensor.shape == shape) return order;
    if (may_repeat && tensor.shape.size() == shape.size() + 1) {
      shape.push_back(tensor.shape.back());
      if (tensor.shape == shape) return order;
    }
  }
  throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor.shape) + "; " +
                    shape_text(shape_in(row_axis_order(layout_))) +
                    (may_repeat ? ", or that with a last axis of equal copies," : "") +
                    " is expected: by spec layout, in/q has Hq = " + std::to_string(sizes_q_.h) +
                    " heads of " + (layout_ == Layout::thd ? "Tq" : "Sq") + " = " +
                    std::to_string(sizes_q_.s) + " rows");
}

Tensor AttentionCase::rows_tensor(DType dtype) const {
  Tensor rows{std::string(format_of(dtype).name), dtype, {}, {}};
  for (const char axis : row_axis_order(layout_)) {
    rows.shape.push_back(axis == 'b' ? sizes_q_.b : axis == 'h' ? sizes_q_.h : sizes_q_.s);
  }
  return rows;
}

std::vector<Index> AttentionCase::packed_starts(const std::string& name, Index total) const {
  const Tensor* tensor = case_.input(name);
  if (!tensor) throw InvalidCase(case_.object("in/" + name) + " is missing; layout thd needs it");
  const std::vector<double>& starts = tensor->values;
  bool good = tensor->shape.size() == 1 && starts.size() >= 2 && starts.front() == 0 &&
              starts.back() == static_cast<double>(total);
  for (std::size_t n = 1; good && n < starts.size(); ++n) good = starts[n] >= starts[n - 1];
  if (!good) {
    throw InvalidCase(case_.object("in/" + name) +
                      " must be [B + 1] integers that start with 0, never decrease and "
                      "end with the " +
                      std::to_string(total) + " packed rows");
  }
  return {starts.begin(), starts.end()};
}

void AttentionCase::read_sequences() {
  if (layout_ == Layout::thd) {
    const std::vector<Index> q = packed_starts("cu_seqlens_q", sizes_q_.s);
    const std::vector<Index> k = packed_starts("cu_seqlens_k", sizes_k_.s);
    if (q.size() != k.size()) {
      throw InvalidCase(case_.object("in/cu_seqlens_k") + " has " + std::to_string(k.size()) +
                        " entries, in/cu_seqlens_q has " + std::to_string(q.size()) + "; they must be equal");
    }
    extents_.bind("B", static_cast<Index>(q.size()) - 1, "in/cu_seqlens_q");
    for (std::size_t n = 0; n + 1 < q.size(); ++n) {
      sequences.push_back(sequence(0, q[n], q[n + 1] - q[n], k[n], k[n + 1] - k[n]));
    }
    return;
  }
  const Tensor* lengths = case_.input("kv_lengths");
  for (Index b = 0; b < sizes_q_.b; ++b) {
    Index keys = case_.key.empty() ? past_ + sizes_k_.s : case_.keys;
    if (lengths) {
      const double length = lengths->values[b];
      if (!(0 <= length && length <= static_cast<double>(keys))) {
        throw InvalidCase(case_.object("in/kv_lengths") + "[" + std::to_string(b) + "] is " +
                          std::to_string(static_cast<Index>(length)) + "; 0 to " + std::to_string(keys) +
                          " keys are expected");
      }
      keys = static_cast<Index>(length);
    }
    sequences.push_back(sequence(b, 0, sizes_q_.s, 0, keys));
  }
}

/// keys: of the past and new ones together; for packed sequences there is no past.
Sequence AttentionCase::sequence(Index b, Index first_q, Index queries, Index first_k, Index keys) {
  Sequence s{b, first_q, queries, first_k, std::max(keys - past_, Index{0}), {}, {}};
  const auto data = [&](const char* name) { return case_.input(name)->values.data(); };
  if (!case_.key.empty()) {
    s.keys = std::ranges::lower_bound(case_.key, keys) - case_.key.begin();
    s.in.key = {case_.key.data(), {s.keys}};
    s.in.all_keys = keys;
  }
  s.in.q = rows_of(data("q"), s, sizes_q_.width);
  s.in.k = keys_of(data("k"), s, sizes_k_.width);
  s.in.v = keys_of(data("v"), s, sizes_v_.width);
  s.in.past = std::min(past_, keys);
  if (!case_.row.empty()) {
    s.in.row = {case_.row.data(), {std::ssize(case_.row)}};
    s.in.rows = case_.rows;
  }
  if (past_ > 0 && case_.key.empty()) {
    const auto joined = [&](const char* name, View<const double, 3> fresh, Index width, auto& storage) {
      const View<const double, 3> past =
          sequence_view(data(name), axis_order(layout_), {sizes_k_.b, sizes_k_.h, past_, width}, b, 0, past_);
      Array<double, 3>& all =
          storage.emplace_back(typename Array<double, 3>::Extents{sizes_k_.h, keys, width});
      for (Index h = 0; h < sizes_k_.h; ++h) {
        for (Index j = 0; j < keys; ++j) {
          for (Index d = 0; d < width; ++d) all(h, j, d) = j < past_ ? past(h, j, d) : fresh(h, j - past_, d);
        }
      }
      return std::as_const(all).view();
    };
    s.in.k = joined("past_k", s.in.k, sizes_k_.width, joined_k_);
    s.in.v = joined("past_v", s.in.v, sizes_v_.width, joined_v_);
  }
  if (const Tensor* mask = case_.input("mask"))
    s.in.mask = broadcast_view(mask->values.data(), mask->shape, s);
  if (const Tensor* bias = case_.input("bias"))
    s.in.bias = broadcast_view(bias->values.data(), bias->shape, s);
  if (const Tensor* sink = case_.input("sink")) s.in.sink = {sink->values.data(), {sizes_q_.h}};
  if (const Tensor* slopes = case_.input("alibi_slopes")) {
    const Index entry = slopes->shape.size() == 2 ? static_cast<Index>(sequences.size()) : 0;
    const Index offset = entry * sizes_q_.h;
    s.in.alibi_slopes = {slopes->values.data() + offset, {sizes_q_.h}};
  }
  s.in_backward = s.in;
  return s;
}

// Absent keys may hold anything; everything that a score or an output depends on has to be finite.
void AttentionCase::check_values() const {
  // positions: of what a part of a case holds, in the whole.
  const auto check = [&](const std::string& name, View<const double, 3> view,
                         const std::vector<Index>& positions) {
    const Tensor& tensor = *case_.input(name);
    for (Index h = 0; h < view.extent(0); ++h) {
      for (Index s = 0; s < view.extent(1); ++s) {
        for (Index d = 0; d < view.extent(2); ++d) {
          const double x = view(h, s, d);
          if (std::isfinite(x)) continue;
          throw InvalidCase(
              case_.object("in/" + name) + " holds " + (std::isnan(x) ? "NaN" : "an infinity") +
              (positions.empty()
                   ? " at " + index_text(tensor, &view(h, s, d) - tensor.values.data())
                   : (name == "q" || name == "do" ? " in row " : " in key ") + std::to_string(positions[s])) +
              "; finite values are expected");
        }
      }
    }
  };
  for (const Sequence& s : sequences) {
    check("q", s.in.q, case_.row);
    check("k", keys_of(case_.input("k")->values.data(), s, sizes_k_.width), case_.key);
    check("v", keys_of(case_.input("v")->values.data(), s, sizes_v_.width), case_.key);
    if (const Tensor* d_o = case_.input("do"))
      check("do", rows_of(d_o->values.data(), s, sizes_v_.width), case_.row);
    if (past_ > 0 && case_.key.empty()) {
      for (const auto& [name, width] :
           {std::pair{"past_k", sizes_k_.width}, std::pair{"past_v", sizes_v_.width}}) {
        check(name,
              sequence_view(case_.input(name)->values.data(), axis_order(layout_),
                            {sizes_k_.b, sizes_k_.h, past_, width}, s.b, 0, s.in.past),
              {});
      }
    }
  }
  for (const std::string name : {"bias", "alibi_slopes", "sink", "mask"}) {
    const Tensor* tensor = case_.input(name);
    for (Index n = 0; tensor && n < tensor->size(); ++n) {
      const double x = tensor->values[n];
      const bool good =
          name == "mask" ? x == 0 || x == 1 : std::isfinite(x) || (x == -infinity && name == "bias");
      if (good) continue;
      throw InvalidCase(case_.object("in/" + name) + " holds " + exact_text(x) + " at " +
                        index_text(*tensor, n) + "; " +
                        (name == "mask"   ? "0 or 1 is"
                         : name == "bias" ? "finite values or -inf are"
                                          : "finite values are") +
                        " expected");
    }
  }
}

}  // namespace attest
