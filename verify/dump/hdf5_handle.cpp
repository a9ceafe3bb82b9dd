// Living with the HDF5 library: text from files, the library's own words on a failure, surviving its crashes.
#include "verify/dump/hdf5_handle.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "verify/text.hpp"

namespace attest {
namespace {

/// A hundred times what the headers of the device dumps take, and of 8000 small cases.
rlim_t cpu_seconds(std::uint64_t bytes) {
  constexpr rlim_t least = 3;
  constexpr std::uint64_t bytes_per_second = 10'000'000;
  return least + bytes / bytes_per_second;
}

void limit(decltype(RLIMIT_CPU) resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(resource, &both);
}

[[noreturn]] void run_and_exit(const std::function<void()>& work, std::uint64_t bytes) {
  const int nowhere = open("/dev/null", O_WRONLY);  // what a crash prints is not for the user
  dup2(nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, cpu_seconds(bytes));
  try {
    work();
  } catch (...) {
  }
  _exit(0);  // neither buffers nor files of the parent are ours to finish
}

}  // namespace

std::string in_quotes(std::string_view text) {
  return is_utf8(text) ? '"' + printable(text) + '"' : "that is not UTF-8";
}

std::string library_message() {
  std::string message;
  const auto take_first = [](unsigned, const H5E_error2_t* error, void* result) -> herr_t {
    auto& text = *static_cast<std::string*>(result);
    if (text.empty() && error->desc) text = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &message);
  if (message.empty() || !is_utf8(message)) return "no reason given";
  return printable(message);
}

std::string failure_of_trial(std::uint64_t bytes, const std::function<void()>& work) {
  const pid_t child = fork();
  if (child < 0) return {};
  if (child == 0) run_and_exit(work, bytes);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return {};
  }
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (signal == SIGXCPU || signal == SIGKILL) return "came to no end";
    return std::string("crashed (") + strsignal(signal) + ")";
  }
  return WEXITSTATUS(status) == 0 ? std::string() : "crashed";
}

}  // namespace attest
