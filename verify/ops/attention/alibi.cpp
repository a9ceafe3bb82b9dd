// ALiBi with distances that are not those of its diagonal.
#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/device.hpp"
#include "verify/ops/attention/reads.hpp"

namespace attest {
namespace {

constexpr double most_operations = 1e9;
constexpr Index most_shift = 512;
constexpr double most_limit = 4096;
/// Of many candidates, those whose lse is right have their o looked at.
constexpr double least_explained_of_lse = 0.9;

/// What ALiBi adds to the score of a row and a key, less its slope. Distances are those of a declared one, at
/// least 0.
struct Distances {
  std::string fault;
  bool is_fitted;
  std::function<double(const AttentionRow& row, Index j, double distance)> of;
};

double declared_distance(const AttentionRow& row, Index j) {
  return static_cast<double>(
      alibi_distance(row.spec->alibi, diagonal(*row.spec, *row.in, row.i), row.in->key_position(j)));
}

/// From the diagonal `shift(row)` keys further.
template <class F>
auto from_diagonal(const F& shift) {
  return [shift](const AttentionRow& row, Index j, double) {
    const Index at = diagonal(*row.spec, *row.in, row.i) + shift(row);
    return static_cast<double>(alibi_distance(row.spec->alibi, at, row.in->key_position(j)));
  };
}

std::vector<Distances> candidates(const AttentionCase& attention, std::span<const AttentionRow> rows) {
  std::vector<Distances> all;
  all.push_back({"ALiBi distance |i - j|, without the offset of the diagonal", false,
                 from_diagonal([](const AttentionRow& row) {
                   return -diagonal(*row.spec, *row.in, 0) + (row.in->row ? row.in->row(0) : 0);
                 })});
  all.push_back({"ALiBi distance from a diagonal that ends at the padded length, not at in/kv_lengths", false,
                 from_diagonal([padded = attention.padded_keys()](const AttentionRow& row) {
                   return padded - row.in->sequence_keys();
                 })});
  all.push_back({"ALiBi without the absolute value: keys behind the diagonal gain", false,
                 [](const AttentionRow& row, Index j, double) {
                   return static_cast<double>(diagonal(*row.spec, *row.in, row.i) - row.in->key_position(j));
                 }});
  all.push_back({"ALiBi by the square of the distance", false,
                 [](const AttentionRow&, Index, double distance) { return distance * std::abs(distance); }});
  for (const Index tile : {16, 32, 64, 128}) {
    all.push_back({"ALiBi distance from the place of a key in its tile of " + std::to_string(tile), false,
                   [tile](const AttentionRow& row, Index j, double) {
                     return static_cast<double>(alibi_distance(row.spec->alibi,
                                                               diagonal(*row.spec, *row.in, row.i),
                                                               row.in->key_position(j) % tile));
                   }});
  }
  double longest = 0;
  for (const AttentionRow& row : rows) {
    for (const Index j : row.key) longest = std::max(longest, declared_distance(row, j));
  }
  for (double most = 0; most < std::min(longest, most_limit); ++most) {
    all.push_back({"ALiBi distance at most " + std::to_string(static_cast<Index>(most)), true,
                   [most](const AttentionRow&, Index, double distance) { return std::min(distance, most); }});
  }
  for (Index shift = -most_shift; shift <= most_shift; ++shift) {
    if (shift == 0) continue;
    all.push_back({"ALiBi distance from a diagonal " + std::to_string(std::abs(shift)) + " keys too " +
                       (shift > 0 ? "far" : "short"),
                   true, from_diagonal([shift](const AttentionRow&) { return shift; })});
  }
  return all;
}

/// A row with other distances: lse first, which most candidates fail by.
void add_to(Fits& fits, const AttentionRow& row, const Distances& distances, bool with_o) {
  const double slope = row.in->alibi_slopes(row.h);
  double mass = 1;
  std::vector<double> factor(row.key.size());
  for (std::size_t c = 0; c < factor.size(); ++c) {
    const double declared = declared_distance(row, row.key[c]);
    factor[c] = std::exp(slope * (declared - distances.of(row, row.key[c], declared)));
    mass += row.p[c] * (factor[c] - 1);
  }
  if (row.has_lse) fits.lse.add(row.got_lse, row.lse, row.lse + std::log(mass), row.lse_sigma);
  if (!with_o) return;
  for (std::size_t e = 0; e < row.o.size(); ++e) {
    double o = 0;
    for (std::size_t c = 0; c < factor.size(); ++c)
      o += row.stored[c] * factor[c] * row.v(static_cast<Index>(c), static_cast<Index>(e));
    fits.o.add(row.got[e], row.o[e], o / mass, row.sigma[e], row.replayed_in);
  }
}

}  // namespace

std::vector<DiagnosisEntry> wrong_alibi(const AttentionCase& attention, std::span<const AttentionRow> rows) {
  if (rows.empty() || !rows.front().in->alibi_slopes) return {};
  const std::vector<AttentionRow> few = few_of(rows);
  const std::vector<Distances> all = candidates(attention, few);
  const AttentionInputs& in = *rows.front().in;
  const double operations = static_cast<double>(few.size() * all.size()) *
                            static_cast<double>(in.keys() * (few.front().has_lse ? 20 : 20 + in.v_width()));
  if (operations > most_operations) return {};
  std::vector<double> shares(all.size());
#pragma omp parallel for schedule(dynamic, 16)
  for (std::size_t n = 0; n < all.size(); ++n) {
    Fits fits;
    for (const AttentionRow& row : few) add_to(fits, row, all[n], false);
    if (fits.lse.tells() && fits.lse.explained() < least_explained_of_lse) continue;
    for (const AttentionRow& row : few) add_to(fits, row, all[n], true);
    shares[n] = fits.o.denies() ? 0 : (fits.o + fits.lse).explained();
  }
  std::size_t best = 0;
  for (std::size_t n = 1; n < all.size(); ++n)
    if (shares[n] > shares[best] + (all[best].is_fitted ? 0 : least_gain)) best = n;
  Fits fits;
  for (const AttentionRow& row : rows) add_to(fits, row, all[best], true);
  std::vector<DiagnosisEntry> found = fitted_fault(fits, all[best].fault);
  for (DiagnosisEntry& x : found)
    if (!all[best].is_fitted) x.confidence /= preference_for_constants;
  return found;
}

}  // namespace attest
