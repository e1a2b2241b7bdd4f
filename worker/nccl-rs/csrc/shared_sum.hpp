// Sums of gradients between processes of one machine, through memory that they share: one pass
// over the data, where sockets need a dozen copies through the kernel.
//
// Each rank's buckets lie in its own segment, and behind them room for sums. A rank sums its
// share of a bucket's elements over all ranks, in the order of ranks, into that room, and there the
// others read it: the optimizer takes every sum from who made it. So every sum is made once: all
// ranks read the same bits, and these depend neither on timing nor on where in a bucket an element
// lies.
//
// Nobody is waited for while gradients are still being computed: what can be summed is summed when
// the next bucket is ready, and the rest after the last. The buckets keep what their rank has
// computed itself, whole: when a peer dies before all sums are there, those who are left need not
// compute it again. When it dies later, its sums are where they were, and nobody needs it any more:
// who looks for them has the step. A rank makes the next step's sums once all ranks have put their
// next gradients there, and by then they have read these. Only who has left the group may use its
// memory for something else meanwhile, and that shows: see `require_whole`. A peer's death shows by
// its process, its end of the group by its segment.
#pragma once

#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "group.hpp"
#include "segment.hpp"
#include "update.hpp"

namespace nrs {

class SharedSum {
 public:
  // Puts the buckets' memory into segments that all ranks share, or answers null, alike on all
  // ranks, where not all of them can: then nothing has changed. `beside`, if defined, is summed as a
  // further bucket, but keeps its memory. A collective call.
  static std::unique_ptr<SharedSum> make(
      nrs_group& group, const std::vector<at::Tensor>& buckets, const at::Tensor& beside) {
    const auto ranks = static_cast<size_t>(group.group->getSize());
    std::unique_ptr<SharedSum> shared(new SharedSum(group, buckets, beside));
    KeptSegments& kept = KeptSegments::of_process();
    shared->own_ = kept.own(shared->buckets_.size(), shared->bytes_ + shared->sum_bytes_);

    const auto width = static_cast<int64_t>(sizeof(SegmentPlace) / sizeof(int64_t));
    const SegmentPlace own = shared->own_ ? shared->own_->place() : SegmentPlace{};
    auto told = at::empty({width}, at::kLong);
    std::memcpy(told.data_ptr<int64_t>(), &own, sizeof(own));
    auto heard = at::empty({static_cast<int64_t>(ranks) * width}, at::kLong);
    collect(all_gather(group, heard, told));
    // Now nobody looks any more at what this segment was used for before; nobody uses it anew before all
    // have come through the reduction below.
    if (shared->own_) {
      shared->found_ = SharedPlace{shared->own_->identity(), shared->own_->token()};
      shared->own_->renew(own.token, shared->buckets_.size());
    }

    bool reached = shared->own_ != nullptr;
    std::vector<std::shared_ptr<Segment>> peers;
    for (size_t rank = 0; rank < ranks; ++rank) {
      SegmentPlace place;
      std::memcpy(static_cast<void*>(&place), heard.data_ptr<int64_t>() + rank * width, sizeof(place));
      const bool self = rank == static_cast<size_t>(group.group->getRank());
      auto segment = self ? shared->own_ : kept.peer(place, own);
      reached = reached && segment != nullptr;
      if (segment && !self) {
        peers.push_back(segment);
      }
      shared->segments_.push_back(std::move(segment));
      shared->tokens_.push_back(place.token);
    }
    kept.keep_peers(std::move(peers));
    auto all = at::full({1}, reached ? 1 : 0, at::kLong);
    collect(all_reduce(group, all, 2));
    if (all.item<int64_t>() == 0) {
      return nullptr;
    }
    shared->move_in();
    group.health->tell_neighbours(shared->own_, own.token);
    return shared;
  }

  // Whose gradients the buckets hold, by the use of their memory: as it is now, and as it was found.
  SharedPlace place() const {
    return SharedPlace{own_->identity(), tokens_[rank_]};
  }
  const SharedPlace& found() const {
    return found_;
  }

  // Forgets the last step.
  void begin() {
    ++step_;
    stages_.assign(buckets_.size(), Stage::kOwn);
    failure_ = nullptr;
    latest_ = Deadline::max();
  }

  // This rank's gradients are in the bucket. A failure is told by `finish`: the backward pass goes
  // on, so that what it computes is whole.
  void ready(size_t bucket) noexcept {
    stages_[bucket] = Stage::kReady;
    own_->bucket(bucket).ready.store(step_, std::memory_order_release);
    own_->announce();
    if (segments_.size() == 1) {
      return;
    }
    try {
      for (size_t other = 0; other < buckets_.size() && !failure_; ++other) {
        sum_if_ready(other, nullptr);
      }
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  // Waits until all sums are there. What is beside the gradients has its own in place.
  void finish() {
    if (segments_.size() == 1) {
      // The addends are the sums.
      squares_ = 0.0;
      for (size_t bucket = 0; bucket < gradients(); ++bucket) {
        squares_ += sum_of_squares(buckets_[bucket]);
      }
      return;
    }
    const size_t last = buckets_.size() - 1;
    if (beside_.defined()) {
      part(rank_, last, 0, beside_.numel()).copy_(beside_);
      ready(last);
    }
    if (failure_) {
      std::rethrow_exception(failure_);
    }
    const Deadline deadline = Clock::now() + group_.timeout;
    // Every share is summed before any sum is waited for.
    for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      sum_if_ready(bucket, &deadline);
    }
    // Now all ranks have given all their gradients, and who has not left before goes on to make its
    // sums. Another one's death is no reason to leave without them: who has all of them goes on to the
    // next step, and who has not would have to take the state from it.
    for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      for (size_t rank = 0; rank < segments_.size(); ++rank) {
        await(rank, segments_[rank]->bucket(bucket).reduced, &deadline, Until::kItsDeath);
      }
    }
    const at::Tensor beside = beside_.defined() ? at::cat(sums_of(last)) : at::Tensor();
    squares_ = 0.0;
    for (size_t bucket = 0; bucket < gradients(); ++bucket) {
      for (const auto& segment : segments_) {
        squares_ += segment->bucket(bucket).squares.load(std::memory_order_relaxed);
      }
    }
    require_whole();
    if (beside.defined()) {
      beside_.copy_(beside);
    }
  }

  // The sum of the squares of all gradients' sums, after `finish`: the same bits on all ranks.
  double squares() const {
    return squares_;
  }

  // Lets nobody wait for this rank's sums in this step any more.
  void give_up() noexcept {
    own_->head()->gave_up.store(step_, std::memory_order_release);
    own_->announce();
  }

  // Where a bucket's sums are after `finish`: one stretch of elements behind the other.
  std::vector<at::Tensor> sums_of(size_t bucket) const {
    if (segments_.size() == 1) {
      return {part(rank_, bucket, 0, buckets_[bucket].numel())};
    }
    std::vector<at::Tensor> stretches;
    for (size_t rank = 0; rank < segments_.size(); ++rank) {
      const int64_t from = share(rank, bucket);
      const int64_t to = share(rank + 1, bucket);
      if (from < to) {
        stretches.push_back(sums(rank, bucket, from, to));
      }
    }
    return stretches;
  }

  // Refuses unless all sums were still there: a rank that has left the group may use its memory for
  // the next one. To be asked after they were read.
  void require_whole() const {
    std::atomic_thread_fence(std::memory_order_acquire);
    for (size_t rank = 0; rank < segments_.size(); ++rank) {
      if (!segments_[rank]->is_used_as(tokens_[rank])) {
        throw Refusal(kCollective, "rank " + std::to_string(rank) + " has left the group");
      }
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Deadline = Clock::time_point;

  // What is next for a bucket.
  enum class Stage { kOwn, kReady, kSummed };

  // How long a rank is waited for.
  enum class Until { kTheGroupsEnd, kItsDeath };

  // How long after the group's end the last sums may take at most: far more than they do.
  static constexpr std::chrono::seconds kLastSums{1};

  SharedSum(nrs_group& group, const std::vector<at::Tensor>& buckets, const at::Tensor& beside)
      : group_(group),
        rank_(static_cast<size_t>(group.group->getRank())),
        buckets_(buckets),
        beside_(beside.defined() ? beside.view({-1}) : beside) {
    if (beside.defined()) {
      buckets_.push_back(beside_);
    }
    const auto pages = [](size_t bytes) { return (bytes + 4095) / 4096 * 4096; };
    for (const auto& bucket : buckets_) {
      offsets_.push_back(bytes_);
      bytes_ += pages(bucket.nbytes());
      // A share is at most half of a bucket and a cache line's elements. The same for every number of
      // ranks, so that the segment is of use to the next group.
      sum_offsets_.push_back(sum_bytes_);
      sum_bytes_ += pages((static_cast<size_t>(bucket.numel()) / 2 + 32) * bucket.element_size());
    }
  }

  // How many of the buckets are gradients.
  size_t gradients() const {
    return buckets_.size() - (beside_.defined() ? 1 : 0);
  }

  static void collect(nrs_work* started) {
    std::unique_ptr<nrs_work> work(started);
    wait(*work);
  }

  // Lets each bucket's storage be its place in the own segment. Views of it, such as the
  // parameters' gradients, follow, since they share the storage.
  void move_in() {
    for (size_t bucket = 0; bucket < gradients(); ++bucket) {
      char* data = own_->data(buckets_.size(), offsets_[bucket]);
      auto* kept = new std::shared_ptr<Segment>(own_);
      buckets_[bucket].storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(
          data,
          kept,
          [](void* context) { delete static_cast<std::shared_ptr<Segment>*>(context); },
          at::kCPU));
    }
  }

  // A bucket of a rank as a tensor, from one element to another.
  at::Tensor part(size_t rank, size_t bucket, int64_t from, int64_t to) const {
    return elements(rank, bucket, offsets_[bucket], from, to);
  }

  // The sums that a rank has made of its share of a bucket, from one element of the bucket to another.
  at::Tensor sums(size_t rank, size_t bucket, int64_t from, int64_t to) const {
    // At the front of their room: with more ranks the rest of it never becomes real memory.
    const int64_t first = share(rank, bucket);
    return elements(rank, bucket, bytes_ + sum_offsets_[bucket], from - first, to - first);
  }

  at::Tensor elements(size_t rank, size_t bucket, size_t offset, int64_t from, int64_t to) const {
    const auto& like = buckets_[bucket];
    char* data = segments_[rank]->data(buckets_.size(), offset);
    return at::from_blob(
        data + from * static_cast<int64_t>(like.element_size()), {to - from}, like.options());
  }

  // The first element of a rank's share of a bucket.
  int64_t share(size_t rank, size_t bucket) const {
    const auto ranks = static_cast<int64_t>(segments_.size());
    // Whole cache lines, so that no two ranks write to one.
    const int64_t each = (buckets_[bucket].numel() + ranks - 1) / ranks + 15;
    return std::min(buckets_[bucket].numel(), each / 16 * 16 * static_cast<int64_t>(rank));
  }

  // Makes this rank's share of a bucket's sums, if all ranks' gradients are there; with a deadline it
  // waits for them.
  void sum_if_ready(size_t bucket, const Deadline* deadline) {
    if (stages_[bucket] != Stage::kReady) {
      return;
    }
    for (size_t rank = 0; rank < segments_.size(); ++rank) {
      if (!await(rank, segments_[rank]->bucket(bucket).ready, deadline)) {
        return;
      }
    }
    const double squares = sum(bucket, share(rank_, bucket), share(rank_ + 1, bucket));
    own_->bucket(bucket).squares.store(squares, std::memory_order_relaxed);
    own_->bucket(bucket).reduced.store(step_, std::memory_order_release);
    own_->announce();
    stages_[bucket] = Stage::kSummed;
  }

  // Answers the sum of the sums' squares, of gradients.
  double sum(size_t bucket, int64_t begin, int64_t end) {
    if (begin >= end) {
      return 0.0;
    }
    auto into = sums(rank_, bucket, begin, end);
    std::vector<at::Tensor> addends;
    for (size_t rank = 0; rank < segments_.size(); ++rank) {
      addends.push_back(part(rank, bucket, begin, end));
    }
    if (into.scalar_type() == at::kFloat) {
      std::vector<const float*> floats;
      for (const auto& addend : addends) {
        floats.push_back(addend.data_ptr<float>());
      }
      return sum_floats(end - begin, floats, into.data_ptr<float>());
    }
    at::add_out(into, addends[0], addends[1]);
    for (size_t rank = 2; rank < addends.size(); ++rank) {
      into.add_(addends[rank]);
    }
    // What is beside gradients may be whole numbers, of which there is no norm.
    return bucket < gradients() ? sum_of_squares(into) : 0.0;
  }

  // Whether a rank has got to this step; with a deadline it returns only once that is so.
  bool await(
      size_t rank,
      const std::atomic<uint64_t>& reached,
      const Deadline* deadline,
      Until until = Until::kTheGroupsEnd) {
    const Segment& peer = *segments_[rank];
    while (true) {
      const uint32_t news = peer.head()->news.load(std::memory_order_acquire);
      const bool got_there = reached.load(std::memory_order_acquire) >= step_;
      const bool of_this_group = peer.is_used_as(tokens_[rank]);
      if (got_there && of_this_group) {
        return true;
      }
      if (deadline == nullptr) {
        return false;
      }
      const bool over = group_.health->ended();
      if (over && latest_ == Deadline::max()) {
        latest_ = Clock::now() + std::min<Clock::duration>(kLastSums, group_.timeout / 4);
      }
      if (over && (until == Until::kTheGroupsEnd || Clock::now() > latest_)) {
        group_.health->require_alive();
      }
      const auto& head = *peer.head();
      const bool left = until == Until::kTheGroupsEnd
          ? head.ended.load(std::memory_order_acquire) != 0
          : head.gave_up.load(std::memory_order_acquire) >= step_;
      const char* failure = nullptr;
      if (!of_this_group || left) {
        failure = " has left the group";
      } else if (rank != rank_ && peer.dead()) {
        failure = "'s process has ended";
      } else if (Clock::now() > *deadline) {
        failure = " did not do its part in time";
      }
      // What it did before it went counts.
      if (failure != nullptr &&
          (!of_this_group || reached.load(std::memory_order_acquire) < step_)) {
        const std::string text = "rank " + std::to_string(rank) + failure;
        group_.health->end(text, false);
        throw Refusal(kCollective, text);
      }
      peer.await_news(news);
    }
  }

  nrs_group& group_;
  size_t rank_;
  std::vector<at::Tensor> buckets_;  // and what is summed beside them
  at::Tensor beside_;
  std::vector<size_t> offsets_;
  size_t bytes_ = 0;
  std::vector<size_t> sum_offsets_;  // from `bytes_` on
  size_t sum_bytes_ = 0;
  std::shared_ptr<Segment> own_;
  std::vector<std::shared_ptr<Segment>> segments_;
  std::vector<int64_t> tokens_;
  std::vector<Stage> stages_;
  uint64_t step_ = 0;
  double squares_ = 0.0;  // of this step's sums, over all ranks
  SharedPlace found_;
  std::exception_ptr failure_;  // of this step, and not told yet
  Deadline latest_ = Deadline::max();  // for the last sums, once the group is over
};

}  // namespace nrs
