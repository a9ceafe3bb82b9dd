// attest_emulation: how far the emulated forward pass is off, beside the kernels of data/device. Writes the
// table of docs/emulation.md.
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "tiled/emulated.hpp"
#include "verify/dump/dump.hpp"
#include "verify/ops/attention/case.hpp"

namespace {

using namespace attest;

constexpr const char* begin = "<!-- table: attest_emulation -->\n";
constexpr const char* end = "<!-- end of table -->\n";
constexpr Contract hopper{DType::float16, DType::float32, {DType::float32, 16, 2}, {DType::float32, 16, 2}};
constexpr Index tiles[] = {64, 128};
constexpr const char* workloads[] = {"clip_text", "clip_vit_l14_336", "cross", "llm_causal", "vit_h14"};
constexpr const char* kernels[] = {"cudnn", "efficient", "flash"};

struct Results {
  Tensor o, lse;
};

/// What forward(sequence, outputs) writes for every sequence of a case.
template <class Forward>
Results run(const AttentionCase& attention, const Case& c, const Forward& forward) {
  Results x{c.out.at("o"), c.out.at("lse")};
  for (const Sequence& s : attention.sequences) {
    const View<double, 3> lse = attention.like_rows(x.lse.values.data(), x.lse, s);
    forward(s.in, tiled::Outputs<double>{
                      attention.like_o(x.o.values.data(), s),
                      {lse.data_handle(), {lse.extent(0), lse.extent(1)}, {lse.stride(0), lse.stride(1)}},
                      {},
                      {}});
  }
  return x;
}

Results emulated(const AttentionCase& attention, const Case& c, Index tile) {
  Results x = run(attention, c, [&](const AttentionInputs& in, const tiled::Outputs<double>& out) {
    tiled::attention_forward_emulated(attention.spec, hopper, {.key_tile = tile}, in, out);
  });
  for (double& o : x.o.values) o = round_to(o, DType::float16);
  return x;
}

double rms_error(const Tensor& got, const Tensor& exact) {
  double sum = 0;
  for (Index n = 0; n < exact.size(); ++n)
    sum += (got.values[n] - exact.values[n]) * (got.values[n] - exact.values[n]);
  return std::sqrt(sum / static_cast<double>(exact.size()));
}

template <class... T>
std::string text(const char* format, T... values) {
  std::array<char, 200> line{};
  std::snprintf(line.data(), line.size(), format, values...);
  return line.data();
}

/// Two rows of the table: o and lse.
std::string rows(const std::string& folder, const std::string& workload) {
  const Dump dump(folder + "/h200_fp16_" + workload + ".h5");
  std::vector<Results> device, ours;
  Results exact;
  for (const char* kernel : kernels) {
    const Case c = dump.read("fp16_" + workload + "_" + kernel);
    device.push_back({c.out.at("o"), c.out.at("lse")});
    if (device.size() > 1) continue;  // the inputs are the same
    const AttentionCase attention(c);
    exact = run(attention, c, [&](const AttentionInputs& in, const tiled::Outputs<double>& out) {
      tiled::attention_forward<double>(attention.spec, {&in, 1}, {&out, 1});
    });
    for (const Index tile : tiles) ours.push_back(emulated(attention, c, tile));
  }
  std::string lines;
  for (Tensor Results::*output : {&Results::o, &Results::lse}) {
    const auto error = [&](const Results& x) { return rms_error(x.*output, exact.*output); };
    lines += text("| %s | `%s` | %.2e · %.2e |", workload.c_str(), output == &Results::o ? "o" : "lse",
                  error(ours[0]), error(ours[1]));
    for (const Results& x : device) {
      lines += text(" %.2f · %.2f |", error(ours[0]) / error(x), error(ours[1]) / error(x));
    }
    lines += "\n";
  }
  return lines;
}

int write(const std::string& page, const std::string& folder, bool only_checks) {
  std::ifstream file(page, std::ios::binary);
  const std::string old{std::istreambuf_iterator<char>(file), {}};
  const std::size_t first = old.find(begin), last = old.find(end);
  if (first == std::string::npos || last == std::string::npos) {
    std::cerr << page << " lacks the lines between which the table stands\n";
    return 1;
  }
  std::string table =
      "| workload | output | rms error, tiles of 64 · 128 | / cuDNN | / efficient | / FlashAttention-2 |\n"
      "|---|---|---|---|---|---|\n";
  for (const char* workload : workloads) table += rows(folder, workload);
  const std::string now = old.substr(0, first) + begin + table + old.substr(last);
  if (now == old) return 0;
  if (only_checks) {
    std::cerr << page << " is out of date; the table is now\n" << table;
    return 1;
  }
  std::ofstream(page, std::ios::binary) << now;
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const bool only_checks = count == 4 && std::string(arguments[1]) == "--check";
  if (count != 3 && !only_checks) {
    std::cerr << "usage: attest_emulation [--check] PAGE FOLDER\n";
    return 2;
  }
  return write(arguments[count - 2], arguments[count - 1], only_checks);
}
