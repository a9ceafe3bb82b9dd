// Numbers of columns that a kernel may take for the width of a row.
#include "verify/ops/widths.hpp"

namespace attest {

std::set<Index> padded_widths(Index width) {
  std::set<Index> all;
  for (Index block = 8; block < 2 * width; block *= 2) all.insert((width + block - 1) / block * block);
  all.erase(width);
  return all;
}

std::set<Index> cut_widths(Index width) {
  std::set<Index> all = {width - 1};
  for (Index block = 2; block < width; block *= 2) all.insert(width / block * block);
  std::erase_if(all, [&](Index n) { return n == width || n == 0 || 2 * n < width; });
  return all;
}

}  // namespace attest
