// A line that says how far a long run is.
#pragma once

#include <chrono>
#include <string>

#include "verify/text.hpp"

namespace attest {

/// Draws on standard error if that is a terminal, and does nothing otherwise. The line appears once the run
/// has taken half a second and is redrawn at most ten times a second, so that calls may be frequent. To be
/// used by one thread.
class Progress {
 public:
  Progress();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Case `index` of `count`, from 0.
  void begin_case(const std::string& name, Index index, Index count);

  /// What is done with the case from here on: "contract 3". begin_case() ends it.
  void begin_step(const std::string& name);

  /// The part of the case, or of its step, that is done, 0 to 1.
  void advance(double fraction);

  /// Takes the line away, so that something else can be written.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool enabled_;
  Index drawn_width_ = 0;  // of the line on the terminal
  std::string label_, step_;
  Clock::time_point next_;
};

}  // namespace attest
