// A stretch of memory that the ranks of one machine share: each has one, writes to its own, and reads
// the others'.
//
// It has no name in any file system, so nothing is left of it when a process is killed: it is an
// anonymous file (memfd) that peers open through /proc/PID/fd, which the kernel allows to processes
// of the same user in the same PID namespace. It cannot be shrunk under a reader.
//
// A process keeps its segment, and those of its peers, from one group to the next: its pages are there
// already, which is most of what a group's forming would cost. The token tells what is of which group.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace nrs {

// What a rank tells its peers in an all-gather, so that they can find its segment.
struct SegmentPlace {
  int64_t there = 0;  // 0: this rank could not make one
  int64_t machine = 0;
  int64_t pid_namespace = 0;
  int64_t pid = 0;
  int64_t descriptor = 0;
  int64_t bytes = 0;
  int64_t identity = 0;  // of the memory, whatever it is used for
  int64_t token = 0;     // of its use by this group
};

// A use of a segment: what lies in it stays what it was for as long as both numbers do.
struct SharedPlace {
  int64_t identity = 0;
  int64_t token = 0;

  bool operator==(const SharedPlace& other) const {
    return identity == other.identity && token == other.token;
  }
};

// How far a rank is with one bucket: the numbers of the last steps in which it got there.
struct BucketProgress {
  std::atomic<uint64_t> ready;    // its own gradients are in its segment
  std::atomic<uint64_t> reduced;  // the sums of its share of the elements are there
  std::atomic<double> squares;    // of these sums, added up; there before `reduced` says so
};

// The first bytes of a segment. A process writes to its own only.
struct SegmentHead {
  std::atomic<int64_t> identity;
  std::atomic<int64_t> token;  // changes before anything else does when another group begins to use it
  std::atomic<uint32_t> news;   // counts every change below; peers sleep on it
  std::atomic<uint32_t> ended;  // its group is over
  std::atomic<uint64_t> gave_up;  // the last step that it left without all sums
};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "shared between processes");
static_assert(std::atomic<double>::is_always_lock_free, "shared between processes");

class Segment {
 public:
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  ~Segment() {
    if (memory_ != nullptr) {
      ::munmap(memory_, bytes_);
    }
    close_descriptor();
    if (process_ >= 0) {
      ::close(process_);
    }
  }

  // Bytes before the data of a segment for so many buckets: whole pages.
  static size_t head_bytes(size_t buckets) {
    const size_t bytes = sizeof(SegmentHead) + buckets * sizeof(BucketProgress);
    return (bytes + 4095) / 4096 * 4096;
  }

  // A segment of this process; none where the system refuses one.
  static std::shared_ptr<Segment> make(size_t bytes) {
    std::shared_ptr<Segment> segment(new Segment());
    segment->descriptor_ =
        static_cast<int>(::syscall(SYS_memfd_create, "gradients", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (segment->descriptor_ < 0 ||
        ::ftruncate(segment->descriptor_, static_cast<off_t>(bytes)) != 0 ||
        ::fcntl(segment->descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        !segment->map(bytes)) {
      return nullptr;
    }
    segment->head()->identity.store(random_number(), std::memory_order_release);
    return segment;
  }

  // Makes this process's own segment as if new, for another group: who still belongs to the one before
  // sees by the token that nothing here is meant for it.
  void renew(int64_t token, size_t buckets) {
    std::lock_guard<std::mutex> lock(using_);
    head()->token.store(token, std::memory_order_seq_cst);
    for (size_t index = 0; index < buckets; ++index) {
      bucket(index).ready.store(0, std::memory_order_relaxed);
      bucket(index).reduced.store(0, std::memory_order_relaxed);
    }
    head()->gave_up.store(0, std::memory_order_relaxed);
    head()->ended.store(0, std::memory_order_release);
    announce();
  }

  // A peer's segment; none where it cannot be reached from here.
  static std::shared_ptr<Segment> open(const SegmentPlace& place, const SegmentPlace& own) {
    if (place.there == 0 || place.machine != own.machine ||
        place.pid_namespace != own.pid_namespace || place.bytes != own.bytes) {
      return nullptr;
    }
    std::shared_ptr<Segment> segment(new Segment());
    segment->process_ = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(place.pid), 0));
    const std::string path =
        "/proc/" + std::to_string(place.pid) + "/fd/" + std::to_string(place.descriptor);
    segment->descriptor_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct stat status{};
    if (segment->process_ < 0 || segment->descriptor_ < 0 ||
        ::fstat(segment->descriptor_, &status) != 0 || status.st_size != place.bytes ||
        (::fcntl(segment->descriptor_, F_GET_SEALS) & F_SEAL_SHRINK) == 0 ||
        !segment->map(static_cast<size_t>(place.bytes)) || segment->identity() != place.identity) {
      return nullptr;
    }
    segment->close_descriptor();
    return segment;
  }

  // Where this process's segment is, and the token it will have.
  SegmentPlace place() const {
    SegmentPlace place;
    place.identity = identity();
    place.token = random_number();
    place.machine = machine();
    struct stat status{};
    place.pid_namespace =
        ::stat("/proc/self/ns/pid", &status) == 0 ? static_cast<int64_t>(status.st_ino) : 0;
    place.there = place.machine != 0 && place.pid_namespace != 0;
    place.pid = ::getpid();
    place.descriptor = descriptor_;
    place.bytes = static_cast<int64_t>(bytes_);
    return place;
  }

  SegmentHead* head() const {
    return reinterpret_cast<SegmentHead*>(memory_);
  }

  BucketProgress& bucket(size_t index) const {
    return reinterpret_cast<BucketProgress*>(memory_ + sizeof(SegmentHead))[index];
  }

  char* data(size_t buckets, size_t offset) const {
    return memory_ + head_bytes(buckets) + offset;
  }

  // Says that something of this process's own segment has changed.
  void announce() noexcept {
    head()->news.fetch_add(1, std::memory_order_release);
    ::syscall(SYS_futex, &head()->news, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }

  // Whether it is what the group with that token uses. What was read from it before counts only then.
  bool is_used_as(int64_t token) const noexcept {
    std::atomic_thread_fence(std::memory_order_acquire);
    return head()->token.load(std::memory_order_acquire) == token;
  }

  int64_t token() const {
    return head()->token.load(std::memory_order_acquire);
  }

  int64_t identity() const {
    return head()->identity.load(std::memory_order_acquire);
  }

  size_t bytes() const {
    return bytes_;
  }

  // Says that this process's group with that token is over. From any thread, also later than the next
  // group has begun.
  void end(int64_t token) noexcept {
    std::lock_guard<std::mutex> lock(using_);
    if (is_used_as(token)) {
      head()->ended.store(1, std::memory_order_release);
      announce();
    }
  }

  // Sleeps until the peer announces something beyond `news`, or a millisecond has passed.
  void await_news(uint32_t news) const noexcept {
    const timespec patience{0, 1'000'000};
    ::syscall(SYS_futex, &head()->news, FUTEX_WAIT, news, &patience, nullptr, 0);
  }

  // Whether the peer's process is gone.
  bool dead() const noexcept {
    pollfd poll{process_, POLLIN, 0};
    return ::poll(&poll, 1, 0) == 1;
  }

 private:
  Segment() = default;

  void close_descriptor() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
      descriptor_ = -1;
    }
  }

  static int64_t random_number() {
    std::random_device random;
    return static_cast<int64_t>(random()) << 32 | random();
  }

  bool map(size_t bytes) {
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
    if (memory == MAP_FAILED) {
      return false;
    }
    // Where the system lets shared memory have large pages, a step has fewer misses.
    ::madvise(memory, bytes, MADV_HUGEPAGE);
    memory_ = static_cast<char*>(memory);
    bytes_ = bytes;
    return true;
  }

  // A number for this boot of this machine; 0 if unknown.
  static int64_t machine() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string id;
    if (!(file >> id)) {
      return 0;
    }
    return static_cast<int64_t>(std::hash<std::string>{}(id) | 1);
  }

  std::mutex using_;
  int descriptor_ = -1;
  int process_ = -1;
  char* memory_ = nullptr;
  size_t bytes_ = 0;
};

// The segments that this process keeps from one group to the next.
class KeptSegments {
 public:
  static KeptSegments& of_process() {
    static auto* kept = new KeptSegments();  // outlives threads that run while the process ends
    return *kept;
  }

  // An own segment for so many buckets of so many bytes in all that nobody here uses, to be renewed; none
  // where the system refuses one.
  std::shared_ptr<Segment> own(size_t buckets, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t whole = Segment::head_bytes(buckets) + bytes;
    std::shared_ptr<Segment> found;
    std::vector<std::shared_ptr<Segment>> used;
    for (auto& segment : own_) {
      if (segment.use_count() > 1) {
        used.push_back(segment);
      } else if (!found && segment->bytes() == whole) {
        found = segment;
      }
    }
    own_ = std::move(used);
    if (!found) {
      found = Segment::make(whole);
    }
    if (found) {
      own_.push_back(found);
    }
    return found;
  }

  // A peer's segment; none where it cannot be reached from here.
  std::shared_ptr<Segment> peer(const SegmentPlace& place, const SegmentPlace& own) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& segment : peers_) {
      if (segment->identity() == place.identity) {
        return segment;
      }
    }
    return Segment::open(place, own);
  }

  // Keeps these peers' segments, and others until `drop_gone`: who maps a dead peer's memory last gives all of it back
  // to the system, for which a group that forms has no time.
  void keep_peers(std::vector<std::shared_ptr<Segment>> peers) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& before : peers_) {
      if (std::find(peers.begin(), peers.end(), before) == peers.end()) {
        gone_.push_back(std::move(before));
      }
    }
    peers_ = std::move(peers);
  }

  // Gives back those of peers that are in no group with this process any more.
  void drop_gone() {
    std::vector<std::shared_ptr<Segment>> gone;
    std::lock_guard<std::mutex> lock(mutex_);
    gone.swap(gone_);
  }

  // Gives back what no group uses at the moment.
  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    peers_.clear();
    gone_.clear();
    own_.erase(
        std::remove_if(
            own_.begin(), own_.end(), [](const auto& segment) { return segment.use_count() == 1; }),
        own_.end());
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Segment>> own_;
  std::vector<std::shared_ptr<Segment>> peers_;
  std::vector<std::shared_ptr<Segment>> gone_;
};

}  // namespace nrs
