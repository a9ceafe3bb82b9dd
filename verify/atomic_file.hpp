// Writes a file whole or not at all.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace attest {

/// Names the file and the cause.
struct WriteError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws WriteError if write_whole(path) could not work, so that a long run does not end with a surprise.
/// Leaves nothing behind.
void check_writable(const std::string& path);

/// Writes a new file beside `path` and renames it, so that nobody ever sees half of it. A symbolic link stays
/// one. What is not a regular file (a device, a pipe) is written directly. Throws WriteError.
void write_whole(const std::string& path, std::string_view text);

/// Writes all of `text` to the file descriptor. False, with errno set, if that fails.
bool write_all(int fd, std::string_view text);

}  // namespace attest
