// What a broken attention kernel does. An honest one has none of these.
#pragma once

#include <limits>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest::emulate {

/// Whom mistakes with a tile happen to.
enum class Where {
  one_block,    // the second tile that the second block of rows of head 0 visits
  every_block,  // the second tile of every row
  last_tile,    // the last tile of every row
  every_tile
};

/// Formats: float64 stands for "not rounded".
struct Mistakes {
  // Keys that a row sees
  Index diagonal_shift = 0, diagonal_shift_of_backward = 0;
  bool leaves_diagonal_tile_open = false;  // no causal mask within the tile that the diagonal runs through
  double hidden_score = -std::numeric_limits<double>::infinity();  // of keys that a row may not see
  bool backward_ignores_mask = false, backward_ignores_window = false;
  bool attends_to_padding = false;  // keys of zeros that fill up the last tile take weight
  Index (*kv_head)(Index h, Index q_heads, Index kv_heads) = nullptr;  // that query head h reads

  // Scores
  DType raw_scores = DType::float64, scores = DType::float64;  // before the scale, and after everything
  DType scaled_q = DType::float64;                             // q times the scale
  bool products_in_tf32 = false, tf32_cuts_off = false;
  bool bias_inside_scale = false, bias_inside_softcap = false, softcap_keeps_factor = false,
       softcap_twice = false;
  double bias_factor = 1, alibi_factor = 1, scale_factor_of_last_head = 1;

  // Tiles
  Where where = Where::one_block;
  bool drops_tile = false, repeats_tile = false, shifts_values = false;
  bool stale_keys = false, stale_values = false;  // those of the tile before
  bool misses_rescale = false, misses_rescale_of_sum = false;
  bool stale_maximum = false;  // weights relative to the maximum before this tile
  double skips_below = 0;      // tiles whose maximum is so far below the running one; 0: none

  // Softmax
  bool no_maximum = false;  // exp(s) as it is
  double first_maximum = -std::numeric_limits<double>::infinity();
  bool is_not_divided = false;  // o of the faulty block, by the row sum
  bool sums_stored_weights = false;
  double exp_error = 0, tanh_error = 0, reciprocal_error = 0;  // relative, of either sign; relative
  DType maximum = DType::float64, maximum_of_weights = DType::float64, row_sum = DType::float64;
  bool sink_weighs_1 = false, sink_per_split = false;
  double sink_factor = 1;

  // P V
  bool p_is_cut_off = false, output_is_cut_off = false;          // truncated instead of rounded
  DType tile_sum = DType::float64, output_sum = DType::float64;  // of one tile; running, after every tile
  DType split_output = DType::float64, split_lse = DType::float64;
  bool drops_split = false, merges_in_base_2 = false;
  bool averages_splits = false, weights_splits_by_next = false;

  // Backward
  bool drops_delta = false, delta_of_d_o = false;
  DType delta = DType::float64, delta_output = DType::float64;  // its running sum; o that it is made of
  Index delta_row_shift = 0, delta_rows = 0,
        delta_columns = 0;  // rows that have one, columns it sums; 0: all
  double lse_factor = 1, exp_error_of_backward = 0;
  DType scaled_k = DType::float64;  // k times the scale and log2(e)
  bool reads_maximum = false;       // in place of lse
  bool skips_last_rows = false;     // of dk and dv, in blocks of 32
  DType lse = DType::float64, p_of_dv = DType::float64, ds = DType::float64;
  bool ds_is_cut_off = false, p_of_dv_is_cut_off = false;
  DType dp_sum = DType::float64, dq_sum = DType::float64, dkv_sum = DType::float64;
  bool drops_tile_of_dq = false, repeats_tile_of_dq = false;
  DType dq_in_memory = DType::float64;  // to which every tile adds its share
  int scales_of_dq = 1, scales_of_dk = 1;
  double ds_factor = 1;
  double block_of_dv = 1, block_of_dk = 1;  // factor of the share of the second block of rows of head 0
  bool overwrites_gradients_of_group = false, overwrites_dbias = false;
  bool no_softcap_derivative = false, softcap_derivative_of_capped = false;
};

}  // namespace attest::emulate
