// Rows of a failed attention dump, with everything that explanations of their errors are made from.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "verify/expected.hpp"
#include "verify/ops/attention/case.hpp"
#include "verify/ops/attention/replay.hpp"

namespace attest {

/// One query row. Vectors have one entry per key that it may attend to, or per column of o.
struct AttentionRow {
  const AttentionSpec* spec;
  const AttentionInputs* in;
  Index h, i;

  std::vector<Index> key;
  std::vector<double> product;       // scale q.k
  std::vector<double> score, p;      // exact; score minus softcap(product) is the bias
  std::vector<double> stored;        // p as the kernel seems to have stored it; p itself if that is not known
  double lse;                        // natural; the sink counts
  std::vector<double> o;             // exact, but with the weights as stored; empty without out/o
  std::vector<double> got;           // what the dump has, all finite; empty without out/o
  std::vector<double> sigma;         // predicted standard deviation of its error
  std::optional<DType> replayed_in;  // the type of o, if `stored` is known
  bool has_lse = false;              // the dump has a finite lse
  double got_lse = 0, lse_sigma = 0;  // natural

  Index count() const { return static_cast<Index>(key.size()); }
  double q(Index d) const { return in->q(h, i, d); }
  double k(Index c, Index d) const { return in->k(in->kv_head(h), key[c], d); }
  double v(Index c, Index e) const { return in->v(in->kv_head(h), key[c], e); }
};

/// Rows that hold a wrong element of o or lse, or all rows: as many of them, evenly spread, as take a
/// fraction of a second. None without keys, nor where the dump has no finite o, or no finite lse alone.
enum class WhichRows { wrong, all };
std::vector<AttentionRow> sampled_rows(const AttentionCase& attention, std::span<const Expected> expected,
                                       const std::optional<WeightStore>& store, WhichRows which);

/// Of the rows that hold a wrong element of o or lse, none may attend to any key, as far as a sample tells.
bool wrong_rows_have_no_key(const AttentionCase& attention, std::span<const Expected> expected);

}  // namespace attest
