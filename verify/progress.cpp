// Draws the progress line.
#include "verify/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace attest {

using namespace std::chrono_literals;

Progress::Progress() : enabled_(style_of(STDERR_FILENO).width > 0), next_(Clock::now() + 500ms) {}

void Progress::begin_case(const std::string& name, Index index, Index count) {
  if (!enabled_) return;
  label_ = std::to_string(index + 1) + "/" + std::to_string(count) + " " + printable(name);
  step_ = "";
  advance(0);
}

void Progress::begin_step(const std::string& name) {
  step_ = ", " + name;
  advance(0);
}

void Progress::advance(double fraction) {
  if (!enabled_ || Clock::now() < next_) return;
  next_ = Clock::now() + 100ms;
  const int percent = static_cast<int>(100 * std::clamp(fraction, 0.0, 1.0));
  const std::string tail = step_ + " " + std::to_string(percent) + " %";
  const Index room = style_of(STDERR_FILENO).width - 1;  // the last column might wrap
  const std::string line = shortened(label_, room - display_width(tail)) + tail;
  const Index width = display_width(line);
  std::fprintf(stderr, "\r%s", padded(line, drawn_width_).c_str());
  std::fflush(stderr);
  drawn_width_ = width;
}

void Progress::clear() {
  if (drawn_width_ == 0) return;
  std::fprintf(stderr, "\r%s\r", padded("", drawn_width_).c_str());
  std::fflush(stderr);
  drawn_width_ = 0;
}

}  // namespace attest
