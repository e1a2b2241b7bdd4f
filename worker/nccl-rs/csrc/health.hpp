// Whether a process group still works, and who waits for its collectives.
//
// Why collectives are not waited for where they are done: when a connection ends, Gloo wakes those whose message waits for its
// turn, and not who waits for a message of which a part has gone or come (gloo/transport/tcp/pair.cc, signalException). That one
// sits there until the collective's timeout, and the group's destructor with it.
#pragma once

#include <ATen/core/ivalue.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "connections.hpp"
#include "failure.hpp"
#include "segment.hpp"

namespace nrs {

// Outlives the group in works and callbacks.
class Health : public std::enable_shared_from_this<Health> {
 public:
  using Future = c10::intrusive_ptr<c10::ivalue::Future>;

  // Ends the group for everybody: the first reason stays. `deliberate` if this process asked.
  void end(const std::string& reason, bool deliberate) noexcept {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!ended_) {
        ended_ = true;
        deliberate_ = deliberate;
        try {
          reason_ = reason;
        } catch (...) {
          // Without memory the group ends all the same, namelessly.
        }
      }
    }
    connections.sever();
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [told, token] : neighbours_) {
      if (const auto segment = told.lock()) {
        segment->end(token);
      }
    }
    if (!results_.empty()) {
      give_up_soon();
    }
  }

  // From now on, peers that watch this segment, used with that token, learn of the end as well.
  void tell_neighbours(const std::shared_ptr<Segment>& segment, int64_t token) {
    std::lock_guard<std::mutex> lock(mutex_);
    neighbours_.emplace_back(segment, token);
    if (ended_) {
      segment->end(token);
    }
  }

  bool ended() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return ended_;
  }

  void require_alive() const {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ended_) {
      throw Refusal(kAborted, reason_);
    }
  }

  // What the exception being handled means, if a collective threw it: this process's own abort, or
  // the failure that came first. Ends the group if it was none of both.
  [[noreturn]] void rethrow_as_failed_collective() {
    const std::string text = text_of(std::current_exception());
    end(text, false);
    std::lock_guard<std::mutex> lock(mutex_);
    throw Refusal(deliberate_ ? kAborted : kCollective, reason_);
  }

  // What is to be waited for in place of a collective's own future: it is complete with that, or, a moment after the group's end,
  // with an error. The collective's failure ends the group at once, whoever waits for it or not, so that ranks which do not talk to
  // the dead one learn of it from this one.
  Future watch(c10::ivalue::Future& own) {
    auto result = c10::make_intrusive<c10::ivalue::Future>(own.elementType());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++running_;
      results_.insert(result);
      if (ended_) {
        give_up_soon();
      }
    }
    own.addCallback([health = shared_from_this(), result](c10::ivalue::Future& done) {
      if (done.hasError()) {
        health->end(text_of(done.exception_ptr()), false);
      }
      if (!health->take(result)) {
        return;
      }
      if (done.hasError()) {
        result->setErrorIfNeeded(done.exception_ptr());
      } else {
        result->markCompleted(done.value());
      }
    });
    return result;
  }

  // Whether all collectives of a group that has ended are over, after a moment at the latest.
  bool is_left() {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, given_up_ ? Moment::zero() : kMoment, [&] { return running_ == 0; });
  }

  Connections connections;

 private:
  using Moment = std::chrono::milliseconds;

  // Long enough for a thread that has been woken, or that adds up what it has received, to come out: then nobody uses the
  // tensors any more, for the connections are closed.
  static constexpr Moment kMoment{200};

  // Notes that a collective is over; whether its result is still to be told.
  bool take(const Future& result) {
    std::lock_guard<std::mutex> lock(mutex_);
    --running_;
    changed_.notify_all();
    return results_.erase(result) != 0;
  }

  // Under the lock. Frees whoever still waits when a moment has passed.
  void give_up_soon() noexcept {
    if (giving_up_) {
      return;
    }
    try {
      std::thread([health = shared_from_this()] {
        std::this_thread::sleep_for(kMoment);
        health->give_up();
      }).detach();
      giving_up_ = true;
    } catch (...) {
      // Without a thread the collective's timeout frees them.
    }
  }

  void give_up() {
    std::set<Future> left;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      giving_up_ = false;
      left.swap(results_);
      given_up_ = given_up_ || !left.empty();
    }
    for (const auto& result : left) {
      result->setErrorIfNeeded(
          std::make_exception_ptr(std::runtime_error("the group ended while a message was under way")));
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  bool deliberate_ = false;
  std::string reason_;
  std::vector<std::pair<std::weak_ptr<Segment>, int64_t>> neighbours_;
  // Collectives that are under way, and results that somebody may wait for.
  size_t running_ = 0;
  std::set<Future> results_;
  // Whether those who wait will be freed soon, and whether some had to be.
  bool giving_up_ = false;
  bool given_up_ = false;
};

}  // namespace nrs
