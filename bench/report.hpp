// What attest_bench says: a table for people and JSON for programs.
#pragma once

#include <string>

#include "bench/cases.hpp"

namespace attest::bench {

/// At most 80 columns. Medians marked with * are of all samples, because none was undisturbed.
void print_table(const Cases& x);

/// {processor, compiler, rounds, rows: [{type, what, by, threads, shape, share, per_second, probe_per_second,
/// unit, quiet_samples, samples}]}; share is the median.
std::string json_of(const Cases& x, int rounds);

/// The processor's model in characters that suit a file name.
std::string machine_name();

}  // namespace attest::bench
