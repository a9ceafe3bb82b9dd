// A faulty attention kernel, simulated row by row, to hold its answers against those of a failed dump.
#pragma once

#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/explanations.hpp"

namespace attest {

/// A kernel that departs from exact arithmetic where a function is given.
struct AttentionDevice {
  std::string fault;
  bool is_fitted = false;   // a number of the fault is
  Round query, key, value;  // elements of q, k and v
  Round scaled_query;       // elements of scale q
  Round product_sum;        // the running sum of q.k, every `product_step` elements
  Index product_step = 16;
  Round raw_score;  // q.k
  Round score;
  Round weight;  // relative to the running maximum, or normalised
  bool is_normalised = false;
  bool adds_stored = false;                                  // to the row sum: weights as stored
  bool keeps_output_scale = false, keeps_sum_scale = false;  // nothing is rescaled when the maximum rises
  bool reads_stale_values = false;                           // the rows of V of the tile before
  bool in_last_tile = false;                                 // the three before hold in the last tile alone
  bool rescales_new_sum = false;  // that of a tile, too, by what older ones are rescaled by
  double weight_power = 1,
         rescale_power = 1;  // e to these in place of e, in weights and where the maximum rises
  bool has_other_weights() const {
    return rescales_new_sum || weight_power != 1 || rescale_power != 1 ||
           hidden_score > -std::numeric_limits<double>::infinity();
  }
  Round sum;                             // the running sum of weights, every `tile` keys
  Round factor;                          // by which older tiles are rescaled
  Round part;                            // the sum of P V over `tile` keys, before it joins the others
  Round output_sum;                      // the running sum of P V, every `step` keys
  Index tile = 1 << 20, step = 1 << 20;  // keys between two updates of the running maximum
  Round output;
  bool is_divided = true;  // o, by the row sum
  double scale_factor = 1;
  std::optional<double> softcap;                                   // in place of the declared one
  double hidden_score = -std::numeric_limits<double>::infinity();  // of keys that the row may not see
  Index hidden_tile = 1 << 20;  // of those in the tiles that hold a key that it may
};

/// Of o, and of lse.
struct Fits {
  Fit o, lse;
};
Fits fits(const AttentionDevice& device, std::span<const AttentionRow> rows);

/// A fault with a fitted number, if it explains the errors and o and lse agree on it. Where it hardly matters
/// to one of them, that one need not.
std::vector<DiagnosisEntry> fitted_fault(const Fits& fits, const std::string& cause);

/// First and behind the last of all keys in the tiles that hold one which the row may see.
std::pair<Index, Index> keys_in_tiles(const AttentionRow& row, Index tile);

/// Part of the arithmetic in a narrower format than the contract has it.
std::vector<AttentionDevice> narrow_devices(const Contract& contract, DType element);

/// Exponentials, row sums and divisions that are not those of a softmax.
std::vector<AttentionDevice> wrong_softmax_devices(std::span<const AttentionRow> rows);

}  // namespace attest
