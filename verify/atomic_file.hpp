// Writes a file whole or not at all.
#pragma once

#include <functional>
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

/// The same for what cannot be written as one text: `write` makes the file whose name it is given. Only
/// regular files, and only if `may_replace` existing ones.
void write_whole(const std::string& path, bool may_replace,
                 const std::function<void(const std::string& temporary)>& write);

/// Throws WriteError, which says how to allow it, if the file exists.
void check_absent(const std::string& path);

/// Writes all of `text` to the file descriptor. False, with errno set, if that fails.
bool write_all(int fd, std::string_view text);

}  // namespace attest
