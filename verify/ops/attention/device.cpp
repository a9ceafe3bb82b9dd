// A faulty attention kernel, row by row.
#include "verify/ops/attention/device.hpp"

#include <algorithm>
#include <cmath>

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Answer {
  std::vector<double> o;
  double lse;
};

double capped(double x, double cap) {
  return cap > 0 ? cap * std::tanh(x / cap) : x;
}

std::vector<double> scores(const AttentionDevice& device, const AttentionRow& row) {
  std::vector<double> s = row.score;
  const bool changes_operands = device.query || device.key || device.scaled_query;
  const bool changes_products =
      device.product_sum || device.raw_score || device.scale_factor != 1 || device.softcap;
  if (!(changes_operands || changes_products || device.score)) return s;
  const Index width = row.in->qk_width();
  const double scale = row.spec->scale, declared = row.spec->softcap, cap = device.softcap.value_or(declared);
  const auto plain = [](double x) { return x; };
  const Round query = device.query ? device.query : plain, key = device.key ? device.key : plain;
  std::vector<double> q(width);
  for (Index d = 0; d < width; ++d) {
    q[d] = device.scaled_query ? device.scaled_query(scale * row.q(d)) / scale : query(row.q(d));
  }
  for (Index c = 0; c < row.count(); ++c) {
    double x = row.product[c];
    if (changes_operands || device.product_sum) {
      double sum = 0, part = 0;
      for (Index d = 0; d < width; ++d) {
        part += q[d] * key(row.k(c, d));
        if (!device.product_sum || (d + 1) % device.product_step != 0) continue;
        sum = device.product_sum(sum + part);
        part = 0;
      }
      x = scale * (sum + part);
    }
    if (device.raw_score) x = scale * device.raw_score(x / scale);
    s[c] += capped(x * device.scale_factor, cap) - capped(row.product[c], declared);
    if (device.score) s[c] = device.score(s[c]);
  }
  return s;
}

/// Adds what keys contribute to P.V that the row may not see, and returns their weight.
double add_hidden_keys(const AttentionDevice& device, const AttentionRow& row, double m,
                       std::vector<double>& o) {
  const auto [first, last] = keys_in_tiles(row, device.hidden_tile);
  const double weight = std::exp(device.hidden_score - m);
  double sum = 0;
  auto next = row.key.begin();
  for (Index j = first; j < last; ++j) {
    if (next != row.key.end() && *next == j) {
      ++next;
      continue;
    }
    sum += weight;
    for (Index e = 0; e < row.in->v_width(); ++e) o[e] += weight * row.in->v(row.in->kv_head(row.h), j, e);
  }
  return sum;
}

Answer run(const AttentionDevice& device, const AttentionRow& row) {
  const std::vector<double> s = scores(device, row);
  const Index n = row.count(), width = row.in->v_width();
  const auto rounded = [](const Round& round, double x) { return round ? round(x) : x; };
  double top = row.in->sink ? row.in->sink(row.h) : -infinity, l = row.in->sink ? 1 : 0, all = top;
  double total = 0;  // for normalised weights
  for (const double x : s) all = std::max(all, x);
  for (Index c = 0; c < n; ++c) total += std::exp(s[c] - all);
  if (row.in->sink) total += std::exp(top - all);
  if (device.is_normalised) top = all + std::log(total), l = 0;

  Answer answer{std::vector<double>(width), 0};
  std::vector<double> part(width);
  const auto add_part = [&] {
    for (Index e = 0; e < width; ++e) {
      answer.o[e] = rounded(device.output_sum, answer.o[e] + rounded(device.part, part[e]));
      part[e] = 0;
    }
  };
  for (Index first = 0, last = 0; first < n; first = last) {
    while (last < n && row.key[last] / device.tile == row.key[first] / device.tile) ++last;
    double m = top;
    for (Index c = first; c < last && !device.is_normalised; ++c) m = std::max(m, s[c]);
    const double factor = m == top ? 1 : std::exp(device.rescale_power * (top - m));
    top = m;
    const bool is_wrong = !device.in_last_tile || last == n;
    if (factor != 1 && !(device.keeps_output_scale && is_wrong)) {
      for (double& x : answer.o) x = rounded(device.output_sum, x * rounded(device.factor, factor));
    }
    double sum = 0;
    for (Index c = first; c < last; ++c) {
      const double p = std::exp(device.weight_power * (s[c] - m));
      const double w = device.weight ? device.weight(p) : row.p[c] > 0 ? p * (row.stored[c] / row.p[c]) : p;
      sum += device.adds_stored ? w : p;
      const bool is_stale = device.reads_stale_values && is_wrong && row.key[c] >= device.tile;
      const Index key = row.key[c] - (is_stale ? device.tile : 0);
      for (Index e = 0; e < width; ++e)
        part[e] += w * rounded(device.value, row.in->v(row.in->kv_head(row.h), key, e));
      if ((c + 1 - first) % device.step == 0) add_part();
    }
    add_part();
    if (device.rescales_new_sum) sum *= factor;
    l = rounded(device.sum, (device.keeps_sum_scale && is_wrong ? l : l * factor) + sum);
  }
  if (device.hidden_score > -infinity) {
    l += add_hidden_keys(device, row, top, answer.o);
  }
  if (device.is_normalised) l = 1;
  for (double& x : answer.o) x = rounded(device.output, device.is_divided ? x / l : x);
  answer.lse = top + std::log(l);
  return answer;
}

}  // namespace

std::pair<Index, Index> keys_in_tiles(const AttentionRow& row, Index tile) {
  return {row.key.front() / tile * tile, std::min((row.key.back() / tile + 1) * tile, row.in->keys())};
}

Fits fits(const AttentionDevice& device, std::span<const AttentionRow> rows) {
  Fits total;
  for (const AttentionRow& row : rows) {
    const Answer answer = run(device, row);
    for (std::size_t e = 0; e < row.o.size(); ++e)
      total.o.add(row.got[e], row.o[e], answer.o[e], row.sigma[e], row.replayed_in);
    if (row.has_lse && row.lse_sigma > 0) {
      total.lse.add(row.got_lse, row.lse, answer.lse, row.lse_sigma);
    }
  }
  return total;
}

}  // namespace attest
