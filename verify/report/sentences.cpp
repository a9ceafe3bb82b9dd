// What findings mean, in sentences.
#include "verify/report/sentences.hpp"

#include <algorithm>
#include <cmath>

#include "verify/text.hpp"

namespace attest {

std::string list_text(const std::vector<Index>& numbers) {
  std::string text;
  for (const Index n : numbers) text += (text.empty() ? "" : ",") + std::to_string(n);
  return "[" + text + "]";
}

int digits_of(const OutputFindings& o) {
  return o.type_name == "float64" ? 17 : 9;
}

std::string beyond_sentence(const OutputFindings& o) {
  std::string text =
      std::to_string(o.beyond) + " of " + std::to_string(o.elements) + " elements beyond the bound, " +
      (o.beyond_rigorous > 0 ? std::to_string(o.beyond_rigorous) : "none") + " of them certainly";
  if (std::isfinite(o.worst_rigorous_ratio))
    text += ": worst " + ratio_text(o.worst_rigorous_ratio) + " times the rigorous bound";
  return o.where.empty() ? text : text + "; " + o.where;
}

std::string worst_sentence(const OutputFindings& o) {
  std::string text = "worst at " + list_text(o.at) + ": got " + number_text(o.got, digits_of(o)) + ", want " +
                     number_text(o.want, digits_of(o));
  if (std::isfinite(o.worst_ratio))
    text += "; |error| " + number_text(o.error, 3) + " = " + ratio_text(o.worst_ratio) + " times the bound " +
            number_text(o.bound, 3);
  return text;
}

std::string sentence_of(const Statistic& x) {
  const std::string limit = number_text(x.limit, 3);
  if (x.name == "unreplayed")
    return number_text(100 * x.value, 3) + " % of the values are not what the stored weights give; " +
           number_text(100 * x.limit, 3) + " % is the limit";
  if (x.name == "misrounded")
    return number_text(100 * x.value, 3) + " % of the stored operands are not the exact ones, rounded; " +
           number_text(100 * x.limit, 3) + " % is the limit";
  if (x.name == "replayed spread")
    return "beside the rounding of stored weights errors spread " + number_text(x.value, 3) +
           " times as far as the contract explains; " + limit + " is the limit";
  if (x.name == "spread")
    return "errors spread " + number_text(x.value, 3) + " times as far as the contract explains; " + limit +
           " is the limit";
  return "values are " + number_text(std::abs(x.value), 3) + " of themselves too " +
         (x.value > 0 ? "large" : "small") + "; " + limit + " is the limit";
}

std::vector<std::string> sentences_of(const SpreadByRegion& axis) {
  std::vector<std::string> sentences;
  for (const RegionSpread& x : axis.regions) {
    if (!x.exceeds()) continue;
    const bool is_one = x.first == x.last;
    sentences.push_back((is_one ? axis.name : axis.names) + " " + std::to_string(x.first) +
                        (is_one ? "" : ".." + std::to_string(x.last)) + ": " +
                        sentence_of(Statistic{"spread", x.spread, x.limit}));
  }
  return sentences;
}

std::string range_text(const SpreadByRegion& axis) {
  const auto [least, largest] = std::ranges::minmax(axis.regions, {}, &RegionSpread::spread);
  return "by " + axis.name + " " + number_text(least.spread, 3) + " to " + number_text(largest.spread, 3);
}

std::string sentence_of(const Growth& x) {
  const std::string what = x.name == "worst" ? "worst |error| / bound" : x.name;
  return "error grew: " + what + " " + number_text(x.value, 3) + ", " + number_text(x.before, 3) +
         " in the baseline; " + number_text(x.limit, 3) + " is the limit";
}

}  // namespace attest
