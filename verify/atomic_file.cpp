// Files by temporary name and rename.
#include "verify/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace attest {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path) {
  throw WriteError("cannot write " + path + ": " + std::strerror(errno));
}

/// Where the file itself is, behind symbolic links; throws for a directory.
fs::path target_of(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    errno = EISDIR;
    fail(path);
  }
  const fs::path target = fs::canonical(path, ignored);
  return ignored ? fs::path(path) : target;
}

bool is_special(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) && !fs::is_regular_file(path, ignored);
}

std::string temporary_beside(const fs::path& path) {
  return path.string() + "." + std::to_string(getpid()) + ".tmp";
}

}  // namespace

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

void check_writable(const std::string& path) {
  const fs::path target = target_of(path);
  if (is_special(target)) {
    if (access(target.c_str(), W_OK) != 0) fail(path);
    return;
  }
  const std::string temporary = temporary_beside(target);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) fail(path);
  close(fd);
  unlink(temporary.c_str());
}

void write_whole(const std::string& path, std::string_view text) {
  const fs::path target = target_of(path);
  const bool direct = is_special(target);
  const std::string written_to = direct ? target.string() : temporary_beside(target);
  const int fd = open(written_to.c_str(), O_WRONLY | O_CLOEXEC | (direct ? 0 : O_CREAT | O_EXCL), 0666);
  if (fd < 0) fail(path);
  bool ok = write_all(fd, text);
  ok = close(fd) == 0 && ok;  // a full disk may show only here
  if (ok && !direct) ok = std::rename(written_to.c_str(), target.c_str()) == 0;
  if (ok) return;
  const int cause = errno;
  if (!direct) unlink(written_to.c_str());
  errno = cause;
  fail(path);
}

void check_absent(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(path, ignored)))
    throw WriteError(path + " exists already; --force replaces it");
}

void write_whole(const std::string& path, bool may_replace,
                 const std::function<void(const std::string& temporary)>& write) {
  if (!may_replace) check_absent(path);
  const fs::path target = target_of(path);
  if (is_special(target)) throw WriteError("cannot write " + path + ": it is not a regular file");
  const std::string temporary = temporary_beside(target);
  try {
    write(temporary);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  if (!may_replace && link(temporary.c_str(), target.c_str()) != 0 && errno == EEXIST) {
    unlink(temporary.c_str());
    check_absent(path);
  }
  // Where it was linked both names are the same file, and rename() leaves both.
  if (std::rename(temporary.c_str(), target.c_str()) != 0) {
    const int cause = errno;
    unlink(temporary.c_str());
    errno = cause;
    fail(path);
  }
  unlink(temporary.c_str());
}

}  // namespace attest
