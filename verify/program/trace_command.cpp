// Runs a small attention through tiled/traced.hpp and writes its steps as JSON (docs/trace_json.md).
#include "verify/program/trace_command.hpp"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "tiled/traced.hpp"
#include "verify/atomic_file.hpp"
#include "verify/program/program.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using Json = nlohmann::ordered_json;

constexpr int trace_format = 1;        // counts up when a key changes its meaning or goes away
constexpr Index largest_extent = 64;   // a trace is for reading
constexpr double grid = 4, limit = 2;  // inputs are multiples of 1/grid up to the limit

/// "2x3" as {2, 3}.
std::vector<Index> extents_of(const std::string& option, const std::string& text, const std::string& form,
                              const std::vector<Index>& largest) {
  std::vector<Index> extents;
  const char *at = text.data(), *const end = at + text.size();
  while (extents.size() < largest.size()) {
    Index x = 0;
    const auto [next, error] = std::from_chars(at, end, x);
    if (error != std::errc{} || x < 1 || x > largest[extents.size()]) break;
    extents.push_back(x);
    at = next;
    if (extents.size() < largest.size() && at < end && *at == 'x') ++at;
  }
  if (extents.size() == largest.size() && at == end) return extents;
  std::string most;
  for (const Index x : largest) most += (most.empty() ? "" : "x") + std::to_string(x);
  throw UsageError(option + " is '" + text + "'; expected " + form + ", at most " + most);
}

Causal causal_of(const std::string& name) {
  if (name == "none") return Causal::none;
  if (name == "top_left") return Causal::top_left;
  if (name == "bottom_right") return Causal::bottom_right;
  throw UsageError("--causal is '" + name + "'; expected none, top_left or bottom_right");
}

/// Fills x with multiples of 1/grid in [-limit, limit], the same on every platform: SplitMix64 (Steele, Lea
/// and Flood 2014) from `state` on.
void fill(Array<double, 3>& x, std::uint64_t& state) {
  for (Index n = 0; n < x.size(); ++n) {
    std::uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z ^= z >> 31;
    constexpr auto steps = static_cast<std::uint64_t>(2 * limit * grid + 1);
    x.data()[n] = static_cast<double>(z % steps) / grid - limit;
  }
}

/// Numbers and tensors as JSON.
struct Writer {
  int digits;

  Json operator()(double x) const {
    if (!std::isfinite(x)) return exact_text(x);
    return digits == 17 ? x : std::strtod(number_text(x, digits).c_str(), nullptr);
  }
  Json operator()(const std::vector<double>& x) const {
    Json list = Json::array();
    for (const double value : x) list.push_back((*this)(value));
    return list;
  }
  Json operator()(const Array<double, 2>& x) const {
    Json rows = Json::array();
    for (Index i = 0; i < x.extent(0); ++i) {
      rows.push_back((*this)(std::vector<double>(&x(i, 0), &x(i, 0) + x.extent(1))));
    }
    return rows;
  }
  /// Of head 0, the only one.
  Json operator()(const Array<double, 3>& x) const {
    Array<double, 2> head({x.extent(1), x.extent(2)});
    std::copy_n(x.data(), head.size(), head.data());
    return (*this)(head);
  }
  Json sees(const tiled::TracedTile& x) const {
    Json rows = Json::array();
    for (Index i = 0; i < x.rows; ++i) {
      Json& row = rows.emplace_back(Json::array());
      for (Index j = 0; j < x.keys; ++j) row.push_back(x.sees[i * x.keys + j] ? 1 : 0);
    }
    return rows;
  }

  void add(Json& json, const tiled::ForwardStep& x) const {
    json.update({{"m_before", (*this)(x.m_before)},
                 {"m", (*this)(x.m)},
                 {"factor", (*this)(x.factor)},
                 {"p", (*this)(x.p)},
                 {"l_before", (*this)(x.l_before)},
                 {"l", (*this)(x.l)},
                 {"o_before", (*this)(x.o_before)},
                 {"o", (*this)(x.o)}});
  }
  void add(Json& json, const tiled::BackwardStep& x) const {
    json.update({{"lse", (*this)(x.lse)},
                 {"delta", (*this)(x.delta)},
                 {"p", (*this)(x.p)},
                 {"dp", (*this)(x.dp)},
                 {"ds", (*this)(x.ds)},
                 {"dv_before", (*this)(x.dv_before)},
                 {"dv", (*this)(x.dv)},
                 {"dk_before", (*this)(x.dk_before)},
                 {"dk", (*this)(x.dk)},
                 {"dq_before", (*this)(x.dq_before)},
                 {"dq", (*this)(x.dq)}});
  }

  /// Every tile once, a line each, in the order of the pass; those that it skipped are of kind "none".
  template <class Step>
  std::string tiles(const std::vector<Step>& steps, Index queries, Index keys,
                    const tiled::TraceTiles& tile) const {
    std::string text;
    auto step = steps.begin();
    for (Index row = 0; row < queries; row += tile.queries) {
      for (Index key = 0; key < keys; key += tile.keys) {
        Json json = {{"row", row},
                     {"rows", std::min(tile.queries, queries - row)},
                     {"key", key},
                     {"keys", std::min(tile.keys, keys - key)},
                     {"kind", "none"}};
        if (step != steps.end() && step->first_row == row && step->first_key == key) {
          json["kind"] = step->kind == tiled::TileKind::all ? "all" : "part";
          json["sees"] = sees(*step);
          json["s"] = (*this)(step->scores);
          add(json, *step++);
        }
        text += (text.empty() ? "[\n" : ",\n") + json.dump();
      }
    }
    assert(step == steps.end());
    return text + "]";
  }
};

}  // namespace

int trace(const TraceOptions& options) {
  const std::vector<Index> shape =
      extents_of("--shape", options.shape, "SQxSKxDxE", std::vector<Index>(4, largest_extent));
  const std::vector<Index> tile =
      extents_of("--tile", options.tile, "ROWSxKEYS", {tiled::most_traced_rows, largest_extent});
  if (options.digits < 1 || options.digits > 17)
    throw UsageError("--digits is " + std::to_string(options.digits) + "; expected 1 to 17");
  if (!options.output.empty()) check_writable(options.output);
  const Index queries = shape[0], keys = shape[1], width = shape[2], v_width = shape[3];
  const AttentionSpec spec{
      causal_of(options.causal), 1 / std::sqrt(static_cast<double>(width)), -1, -1, 0, EmptyRow::zero};

  Array<double, 3> q({1, queries, width}), k({1, keys, width}), v({1, keys, v_width}),
      d_o({1, queries, v_width});
  std::uint64_t state = options.seed;
  for (Array<double, 3>* const x : {&q, &k, &v, &d_o}) fill(*x, state);
  const AttentionInputs in{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  const tiled::TraceTiles tiles{tile[0], tile[1]};
  const tiled::Trace found =
      tiled::trace_attention(spec, in, options.backward ? d_o.view() : View<double, 3>{}, tiles);

  const Writer json{options.digits};
  std::string text = "{";
  const auto add = [&](const char* name, const std::string& value) {
    text += (text == "{" ? "" : ",") + ("\n\"" + std::string(name)) + "\": " + value;
  };
  add("format", Json(trace_format).dump());
  add("spec", Json({{"causal", options.causal}, {"scale", json(spec.scale)}}).dump());
  add("shape", Json({{"Sq", queries}, {"Sk", keys}, {"D", width}, {"E", v_width}}).dump());
  add("tile", Json({{"rows", tiles.queries}, {"keys", tiles.keys}}).dump());
  add("seed", Json(options.seed).dump());
  add("q", json(q).dump());
  add("k", json(k).dump());
  add("v", json(v).dump());
  add("forward", json.tiles(found.forward, queries, keys, tiles));
  add("o", json(found.o).dump());
  add("lse", json(std::vector<double>(found.lse.data(), found.lse.data() + queries)).dump());
  if (options.backward) {
    add("do", json(d_o).dump());
    add("backward", json.tiles(found.backward, queries, keys, tiles));
    add("dq", json(found.dq).dump());
    add("dk", json(found.dk).dump());
    add("dv", json(found.dv).dump());
  }
  text += "\n}\n";

  if (!options.output.empty()) {
    write_whole(options.output, text);
    return 0;
  }
  Output output;
  output.print(text);
  return output.status(0);
}

}  // namespace attest
