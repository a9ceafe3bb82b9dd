// Attention with part of its arithmetic in a narrower format than the contract has it.
#include "verify/ops/attention/device.hpp"

namespace attest {
namespace {

bool is_narrower(const Grid& grid, const Format& format) {
  return grid.precision < format.precision || grid.emin > format.emin;
}

}  // namespace

std::vector<AttentionDevice> narrow_devices(const Contract& contract, DType element) {
  std::vector<AttentionDevice> all;
  const auto add = [&](const std::string& fault) -> AttentionDevice& {
    all.emplace_back().fault = fault;
    return all.back();
  };
  const Format &p = format_of(contract.p_dtype), &softmax = format_of(contract.softmax_dtype),
               &type = format_of(element), &qk = format_of(contract.qk.dtype),
               &pv = format_of(contract.pv.dtype),
               &scores = format_of(contract.scores_dtype.value_or(contract.softmax_dtype));
  add("o cut off instead of rounded").output = to({"", type.precision, type.emin}, 1, true);
  if (type.precision >= 24 &&
      contract.qk.tf32 != Tf32::one) {  // before float16, which rounds alike in its range
    for (const bool cuts_off : {false, true}) {
      for (const bool has_p : {false, true}) {
        AttentionDevice& device = add("products in tf32");
        device.query = device.key = device.value = to(tf32, 1, cuts_off);
        if (has_p) device.weight = device.value;
      }
    }
  }
  for (const Grid& grid : narrow_grids) {
    const std::string name = grid.name;
    if (is_narrower(grid, p)) {
      AttentionDevice& normalised = add("weights P stored in " + name);
      normalised.weight = to(grid), normalised.is_normalised = true;
      for (const Index tile : {16, 32, 64, 128, 1 << 20}) {
        AttentionDevice& tiled = add("weights P stored in " + name);
        tiled.weight = to(grid), tiled.tile = tile;
        AttentionDevice& summed = add("weights P rounded to " + name + " before the row sum adds them");
        summed.weight = to(grid), summed.tile = tile, summed.adds_stored = true;
      }
      if (grid.precision < 8) {
        for (const double unit : {256.0, 448.0}) {
          for (const Index tile : {64, 128, 1 << 20}) {
            AttentionDevice& scaled = add("weights P stored in " + name);
            scaled.weight = to(grid, unit), scaled.tile = tile;
          }
        }
      }
    }
    if (is_narrower(grid, scores)) {
      add("scores stored in " + name).score = to(grid);
      add("scores stored in " + name).score = to(grid, 1.44269504088896340736);
      add("scores stored in " + name + " before the scale").raw_score = to(grid);
    }
    const bool adds = grid.precision >= 8;  // nothing is accumulated in 8 bits
    if (adds && is_narrower(grid, qk)) {
      for (const Index step : {1, 4, 8, 16, 32}) {
        AttentionDevice& sum = add("q.k accumulated in " + name);
        sum.product_sum = to(grid), sum.product_step = step;
      }
    }
    if (adds &&
        is_narrower(grid, pv)) {  // key by key: with the maximum so far, the last one, and the row sum
      for (const Index tile : {1, 1 << 20}) {
        for (const bool is_normalised : {false, true}) {
          AttentionDevice& sum = add("P.V accumulated in " + name);
          sum.output_sum = to(grid), sum.step = 1, sum.tile = tile, sum.is_normalised = is_normalised;
        }
      }
    }
    for (const Index tile : {16, 32, 64, 128, 1 << 20}) {
      if (adds && is_narrower(grid, softmax)) {
        AttentionDevice& row_sum = add("the row sum accumulated in " + name);
        row_sum.sum = to(grid), row_sum.tile = tile;
      }
      if (adds && is_narrower(grid, pv)) {
        AttentionDevice& whole_tiles = add("P.V accumulated in " + name);
        whole_tiles.part = whole_tiles.output_sum = whole_tiles.factor = to(grid), whole_tiles.tile = tile;
        for (const bool cuts_off : {false, true}) {
          AttentionDevice& part = add("P.V accumulated in " + name);
          part.part = to(grid, 1, cuts_off), part.tile = tile;
          for (const Index step : {8, 16, 32, 64, 128}) {
            if (step > tile) continue;
            AttentionDevice& sum = add("P.V accumulated in " + name);
            sum.output_sum = to(grid, 1, cuts_off), sum.step = step, sum.tile = tile;
          }
        }
      }
    }
    if (is_narrower(grid, type)) {
      add("o stored in " + name + " on the way").output = to(grid);
      add("q converted to " + name).query = to(grid);
      add("k converted to " + name).key = to(grid);
      add("v converted to " + name).value = to(grid);
      AttentionDevice& cache = add("k and v converted to " + name);
      cache.key = cache.value = to(grid);
      AttentionDevice& inputs = add("q, k and v converted to " + name);
      inputs.query = inputs.key = inputs.value = to(grid);
    }
  }
  if (type.precision < 24) {  // an element type that tensor cores multiply exactly
    const Grid grid{"", type.precision, type.emin};
    add("q multiplied by the scale and stored in " + std::string(type.name) + ": contract key q_factor")
        .scaled_query = to(grid);
    add("q multiplied by the scale and stored in " + std::string(type.name) + ": contract key q_factor")
        .scaled_query = to(grid, 1.44269504088896340736);
  }
  const Grid stored{"", p.precision, p.emin};
  if (!contract.row_sum_takes_stored_weights && is_narrower(stored, softmax)) {
    for (const Index tile : {16, 32, 64, 128, 1 << 20}) {
      AttentionDevice& summed = add("the row sum adds weights as they are stored, in " + std::string(p.name) +
                                    ": contract key row_sum");
      summed.weight = to(stored), summed.tile = tile, summed.adds_stored = true;
    }
  }
  for (const Index tile : {32, 64, 128, 1 << 20}) {
    for (const bool adds_stored : {false, true}) {
      AttentionDevice& cut = add(adds_stored ? "weights P cut off before the row sum adds them"
                                             : "weights P cut off instead of rounded");
      cut.weight = to(stored, 1, true), cut.tile = tile, cut.adds_stored = adds_stored;
    }
  }
  return all;
}

}  // namespace attest
