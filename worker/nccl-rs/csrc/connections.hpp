// A Gloo group's TCP connections, found from outside, so that they can be cut.
//
// Why: ProcessGroupGloo::abort does not unblock a waiting collective; shutdown(2) on its sockets
// does, within milliseconds. Gloo gives no way to its sockets, so they are looked up among the
// process's descriptors when the group has been formed. A socket is the group's if it is new and
// its own address or its peer's went through the group's store: other threads may open sockets
// meanwhile, and cutting one of those would break something unrelated. Listening sockets are never
// touched: shutting one down makes Gloo end the process.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace nrs {

using Inodes = std::set<ino_t>;

// Calls `visit` with every descriptor of this process that is a socket, and its inode.
inline void each_socket(const std::function<void(int, ino_t)>& visit) {
  DIR* directory = ::opendir("/proc/self/fd");
  TORCH_CHECK(directory != nullptr, "/proc/self/fd cannot be read: ", std::strerror(errno));
  std::vector<int> descriptors;
  while (const dirent* entry = ::readdir(directory)) {
    char* end = nullptr;
    const long descriptor = std::strtol(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == '\0') {
      descriptors.push_back(static_cast<int>(descriptor));
    }
  }
  ::closedir(directory);
  for (const int descriptor : descriptors) {
    struct stat status{};
    if (::fstat(descriptor, &status) == 0 && S_ISSOCK(status.st_mode)) {
      visit(descriptor, status.st_ino);
    }
  }
}

inline Inodes open_sockets() {
  Inodes inodes;
  each_socket([&](int, ino_t inode) { inodes.insert(inode); });
  return inodes;
}

// Whether one of the values holds this address. Gloo writes a sockaddr as it is in memory, so
// family and port are its first four bytes, followed by the host's number at a fixed distance.
inline bool mentioned(const sockaddr_storage& address, const std::vector<std::string>& values) {
  const auto* bytes = reinterpret_cast<const char*>(&address);
  size_t host_at = 0;
  size_t host_size = 0;
  if (address.ss_family == AF_INET) {
    host_at = offsetof(sockaddr_in, sin_addr);
    host_size = sizeof(in_addr);
  } else if (address.ss_family == AF_INET6) {
    host_at = offsetof(sockaddr_in6, sin6_addr);
    host_size = sizeof(in6_addr);
  } else {
    return false;
  }
  const std::string head(bytes, 4);
  const std::string host(bytes + host_at, host_size);
  for (const auto& value : values) {
    for (size_t at = value.find(head); at != std::string::npos; at = value.find(head, at + 1)) {
      if (value.compare(at + host_at, host_size, host) == 0) {
        return true;
      }
    }
  }
  return false;
}

class Connections {
 public:
  Connections() = default;
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  ~Connections() {
    for (const int descriptor : duplicates_) {
      ::close(descriptor);
    }
  }

  // Duplicates of the descriptors are kept: Gloo closes its own on an error, and a number that was
  // reused meanwhile would belong to somebody else.
  void find(const Inodes& before, const std::vector<std::string>& exchanged, size_t expected) {
    each_socket([&](int descriptor, ino_t inode) {
      sockaddr_storage own{};
      sockaddr_storage peer{};
      socklen_t own_size = sizeof(own);
      socklen_t peer_size = sizeof(peer);
      if (before.count(inode) != 0 ||
          ::getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0 ||
          ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &own_size) != 0 ||
          !(mentioned(own, exchanged) || mentioned(peer, exchanged))) {
        return;
      }
      const int duplicate = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
      TORCH_CHECK(
          duplicate >= 0, "a connection's descriptor cannot be kept: ", std::strerror(errno));
      duplicates_.push_back(duplicate);
    });
    TORCH_CHECK(
        duplicates_.size() >= expected,
        "only ",
        duplicates_.size(),
        " of ",
        expected,
        " connections to peers are up");
  }

  // Ends all connections for both sides; again does nothing.
  void sever() noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    if (severed_) {
      return;
    }
    severed_ = true;
    for (const int descriptor : duplicates_) {
      // Fails only if the peer has ended it already.
      ::shutdown(descriptor, SHUT_RDWR);
    }
  }

 private:
  std::mutex mutex_;
  bool severed_ = false;
  std::vector<int> duplicates_;
};

}  // namespace nrs
