// Makes the inputs of attention: shapes, layouts, lengths and the optional inputs.
#include <cmath>
#include <memory>

#include "core/invalid_case.hpp"
#include "verify/inputs/attention_rows.hpp"
#include "verify/inputs/make_inputs.hpp"

namespace attest {
namespace {

const std::vector<InputExtent> extents = {
    {"B", "1", "batch entries; in layout thd sequences"},
    {"Hq", "2", "query heads"},
    {"Hkv", "Hq", "key/value heads"},
    {"Sq", "128", "queries; in layout thd of all sequences together"},
    {"Sk", "Sq", "keys, likewise"},
    {"Sp", "0", "keys of the past; above 0 adds past_k and past_v"},
    {"D", "64", "width of a head"},
    {"E", "D", "width of v"},
};

/// Each takes memory before there is a tensor.
constexpr Index most_batch = 1 << 16;

std::map<std::string, std::string> fallbacks_of(const std::string& recipe) {
  if (recipe == "padding") return {{"B", "3"}};
  if (recipe == "long") return {{"Hq", "1"}, {"Sq", "4"}, {"Sk", "8192"}};
  return {};
}

Causal causal_of(const std::string& name) {
  return name == "top_left" ? Causal::top_left : name == "bottom_right" ? Causal::bottom_right : Causal::none;
}

/// [0, total) in `count` parts of unlike lengths.
std::vector<Index> cuts(Index total, Index count) {
  std::vector<Index> at = {0};
  for (Index n = 1; n < count; ++n) at.push_back(total * n * (n + 1) / (count * (count + 1)));
  at.push_back(total);
  return at;
}

class Maker {
 public:
  explicit Maker(InputRequest request)
      : request_(std::move(request)), rows_(std::make_shared<AttentionRows>(rows())) {
    for (const AttentionRecipe& recipe : attention_recipes()) {
      if (recipe.text.name == request_.recipe) recipe_ = &recipe;
    }
    check();
  }

  GeneratedCase make() {
    GeneratedCase c = case_for(request_, "attention");
    const AttentionExtents& n = rows_->n;
    const Index fresh = n.keys - n.past;
    c.in["q"] = tensor(n.q_heads, n.queries, n.width, recipe_->q, 0);
    c.in["k"] = tensor(n.kv_heads, fresh, n.width, recipe_->k, n.past);
    c.in["v"] = tensor(n.kv_heads, fresh, n.v_width, recipe_->v, n.past);
    if (n.past > 0) {
      c.in["past_k"] = tensor(n.kv_heads, n.past, n.width, recipe_->k, 0);
      c.in["past_v"] = tensor(n.kv_heads, n.past, n.v_width, recipe_->v, 0);
    }
    if (request_.recipe == "padding") {
      std::vector<Index> lengths;
      for (const SequenceRange& s : rows_->sequences) lengths.push_back(s.keys);
      c.in["kv_lengths"] = generated_integers(lengths);
    }
    if (rows_->is_packed) {
      c.in["cu_seqlens_q"] = generated_integers(cuts(n.queries, batch_));
      c.in["cu_seqlens_k"] = generated_integers(cuts(n.keys, batch_));
    }
    for (const std::string& name : request_.with) add_optional(c, name);
    return c;
  }

 private:
  AttentionRows rows() {
    const RequestedExtents e(extents, request_, fallbacks_of(request_.recipe));
    if (e["B"] > most_batch) {
      throw InvalidCase("attention: B = " + std::to_string(e["B"]) + " is more than " +
                        std::to_string(most_batch));
    }
    layout_ = layout_of(text_of(request_, "layout", "bhsd"));
    batch_ = e["B"];
    const bool is_packed = layout_ == Layout::thd;
    const AttentionExtents n{is_packed ? 1 : batch_, e["Hq"], e["Hkv"], e["Sq"],
                             e["Sk"] + e["Sp"],      e["Sp"], e["D"],   e["E"]};
    AttentionSpec spec{causal_of(text_of(request_, "causal", "none")),
                       number_of(request_, "scale", 1 / std::sqrt(static_cast<double>(n.width))),
                       integer_of(request_, "window_left", -1),
                       integer_of(request_, "window_right", -1),
                       0,
                       EmptyRow::zero};
    if (merges_heads(layout_)) {
      integer_of(request_, "heads_q", n.q_heads);
      integer_of(request_, "heads_kv", n.kv_heads);
    }
    std::vector<SequenceRange> sequences;
    const std::vector<Index> q = cuts(n.queries, batch_), k = cuts(n.keys, batch_);
    for (Index b = 0; b < batch_; ++b) {
      if (is_packed) {
        sequences.push_back({q[b], q[b + 1] - q[b], k[b], k[b + 1] - k[b]});
      } else {
        // 1 key at least, and never all of them: what lies behind is poisoned.
        const Index length =
            request_.recipe == "padding" ? std::max<Index>(1, n.keys * (b + 1) / (batch_ + 1)) : n.keys;
        sequences.push_back({0, n.queries, 0, length});
      }
    }
    const std::uint64_t seed = request_.seed;
    return {n,         spec,        request_.dtype, seed,        std::move(sequences),
            is_packed, {seed, "q"}, {seed, "k"},    {seed, "v"}, {seed, "target"}};
  }

  static Layout layout_of(const std::string& name) {
    return name == "bshd"   ? Layout::bshd
           : name == "sbhd" ? Layout::sbhd
           : name == "bsm"  ? Layout::bsm
           : name == "sbm"  ? Layout::sbm
           : name == "thd"  ? Layout::thd
                            : Layout::bhsd;
  }

  void check() const {
    const AttentionExtents& n = rows_->n;
    const auto reject = [&](const std::string& what) { throw InvalidCase("attention: " + what); };
    if (n.q_heads % n.kv_heads != 0) {
      reject("Hq = " + std::to_string(n.q_heads) +
             " must be a multiple of Hkv = " + std::to_string(n.kv_heads));
    }
    if (rows_->is_packed) {
      if (n.past > 0) reject("layout thd has no past: Sp must be 0");
      for (const char* name : {"mask", "bias"}) {
        if (request_.with.contains(name)) reject(std::string(name) + " cannot be given in layout thd");
      }
      if (request_.recipe == "padding")
        reject("recipe padding needs a layout with a batch axis; thd has no padding");
    }
    if (request_.recipe == "padding" && n.keys < 2) reject("recipe padding needs at least 2 keys");
    if (request_.recipe != "exact") return;
    KeyCode(n.keys, n.width);
    if (rows_->spec.scale == 0) reject("recipe exact needs a scale other than 0");
    for (const char* name : {"mask", "bias", "alibi_slopes", "sink"}) {
      if (request_.with.contains(name))
        reject("recipe exact cannot have " + std::string(name) + ": its output would not be a row of v");
    }
    InputRequest copy = request_;
    if (number_of(copy, "softcap", 0) != 0)
      reject("recipe exact cannot have a softcap: its output would not be a row of v");
  }

  /// Rows `first` on of every head, in the layout.
  GeneratedTensor tensor(Index heads, Index count, Index width, RowMaker maker, Index first) const {
    std::vector<Index> shape;
    const std::string_view order = axis_order(layout_);
    for (const char axis : order) {
      if (rows_->is_packed && axis == 'b') continue;
      shape.push_back(axis == 'b' ? rows_->n.batch : axis == 'h' ? heads : count);
    }
    if (merges_heads(layout_)) {
      shape.back() *= width;
    } else {
      shape.push_back(width);
    }
    return generated_tensor(
        request_.dtype, shape,
        [rows = rows_, order, heads, count, maker, first](Index n, std::span<double> out) {
          RowPlace at{};
          for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
            const Index extent = *axis == 'b' ? rows->n.batch : *axis == 'h' ? heads : count;
            (*axis == 'b' ? at.b : *axis == 'h' ? at.head : at.row) = n % extent;
            n /= extent;
          }
          at.row += first;
          maker(*rows, at, out);
        },
        merges_heads(layout_) ? heads : 1);
  }

  void add_optional(GeneratedCase& c, const std::string& name) const {
    const AttentionExtents& n = rows_->n;
    const std::uint64_t seed = request_.seed;
    if (name == "do") {
      c.in[name] = tensor(
          n.q_heads, n.queries, n.v_width,
          [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
            RandomStream(in.seed, "do").normals(in.q_index(at.b, at.head, at.row) * in.n.v_width, row);
          },
          0);
    } else if (name == "mask") {
      // Three of four keys; one row in the middle sees none.
      c.in[name] = {
          "bool",
          std::nullopt,
          {n.batch, 1, n.queries, n.keys},
          [stream = RandomStream(seed, name), queries = n.queries](Index row, std::span<double> out) {
            const Index keys = std::ssize(out);
            for (Index j = 0; j < keys; ++j)
              out[j] = queries > 1 && row % queries == queries / 2 ? 0 : stream.below(row * keys + j, 4) > 0;
          }};
    } else if (name == "bias") {
      c.in[name] = normal_tensor(seed, name, request_.dtype, {1, 1, n.queries, n.keys});
    } else if (name == "alibi_slopes") {
      c.in[name] = generated_tensor(DType::float32, {n.q_heads}, [](Index, std::span<double> out) {
        for (Index h = 0; h < std::ssize(out); ++h) out[h] = std::ldexp(1.0, -static_cast<int>(h % 8) - 1);
      });
    } else if (name == "sink") {
      c.in[name] = normal_tensor(seed, name, DType::float32, {n.q_heads}, 1);
    }
  }

  InputRequest request_;
  Layout layout_ = Layout::bhsd;
  Index batch_ = 1;
  std::shared_ptr<const AttentionRows> rows_;
  const AttentionRecipe* recipe_ = nullptr;
};

}  // namespace

OpInputs attention_inputs() {
  std::vector<InputRecipe> recipes;
  for (const AttentionRecipe& recipe : attention_recipes()) recipes.push_back(recipe.text);
  return {extents,
          {"do", "mask", "bias", "alibi_slopes", "sink"},
          std::move(recipes),
          [](const InputRequest& request) { return Maker(request).make(); }};
}

}  // namespace attest
