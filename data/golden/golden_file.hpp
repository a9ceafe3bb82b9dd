// A file of goldens: its cases, and how they are written.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "data/golden/results.hpp"

namespace attest::golden {

/// One case of a file. Its name, inputs, options and the names and types of its outputs are those of `dump`.
struct GoldenCase {
  Case dump;
  Index step = 1;                   // every how many elements the float64 values are kept
  std::set<std::string> unwritten;  // outputs that have float64 values but stay out of the dump
};

struct GoldenFile {
  std::string name, purpose;
  std::uint64_t seed;
  bool is_small;  // seconds do to compute it, and a second derivation in Python checks it
  std::vector<GoldenCase> (*cases)(std::uint64_t seed);
};

std::span<const GoldenFile> all_files();

std::vector<GoldenCase> attention_forward_cases(std::uint64_t seed);
std::vector<GoldenCase> attention_special_cases(std::uint64_t seed);
std::vector<GoldenCase> attention_tile_cases(std::uint64_t seed);
std::vector<GoldenCase> attention_gradient_cases(std::uint64_t seed);
std::vector<GoldenCase> attention_layout_cases(std::uint64_t seed);
std::vector<GoldenCase> softmax_cases(std::uint64_t seed);
std::vector<GoldenCase> activation_cases(std::uint64_t seed);
std::vector<GoldenCase> norm_cases(std::uint64_t seed);
std::vector<GoldenCase> wide_norm_cases(std::uint64_t seed);
std::vector<GoldenCase> rope_cases(std::uint64_t seed);
std::vector<GoldenCase> projection_cases(std::uint64_t seed);
std::vector<GoldenCase> vit_l14_cases(std::uint64_t seed);
std::vector<GoldenCase> vit_l14_gradient_cases(std::uint64_t seed);
std::vector<GoldenCase> clip_text_cases(std::uint64_t seed);
std::vector<GoldenCase> vit_h14_cases(std::uint64_t seed);
std::vector<GoldenCase> eva02_e14_cases(std::uint64_t seed);
std::vector<GoldenCase> llama_cases(std::uint64_t seed);
std::vector<GoldenCase> diffusion_cases(std::uint64_t seed);

/// Computes the cases and writes a dump with the same bytes on every run, in HDF5 1.10's format and without
/// filters. Beside the group of each case stands a group <case>.float64 with the nearest doubles of each
/// output: `o`, or `o[::step]` of its elements in their order. Where these doubles, rounded to another type,
/// do not give the nearest value of that type everywhere, `o.<type>` has those. Tensors with equal bytes are
/// stored once. Throws std::runtime_error where HDF5 fails.
void write_goldens(const std::string& path, const GoldenFile& file);

}  // namespace attest::golden
