// Process groups: one backend each, its collectives, and its end.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "connections.hpp"
#include "failure.hpp"
#include "segment.hpp"
#include "store.hpp"

namespace nrs {

// Whether a group still works, and if not, why first. Outlives the group in works and callbacks.
class Health {
 public:
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

  Connections connections;

 private:
  mutable std::mutex mutex_;
  bool ended_ = false;
  bool deliberate_ = false;
  std::string reason_;
  std::vector<std::pair<std::weak_ptr<Segment>, int64_t>> neighbours_;
};

}  // namespace nrs

extern "C" {

struct nrs_work {
  c10::intrusive_ptr<c10d::Work> work;
  std::shared_ptr<nrs::Health> health;
  // Zero waits for ever in words, but Gloo's collectives carry their own deadline.
  std::chrono::milliseconds timeout;
};

struct nrs_group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  c10::intrusive_ptr<c10d::Backend> backend;
  std::shared_ptr<nrs::Health> health;
  at::Device device{at::kCPU};
  std::chrono::milliseconds timeout{0};
  // Whether reducers may sum through memory that the ranks share.
  bool share = false;
  // Whether reducers send gradients as bfloat16.
  bool compress = false;
  // Collectives are numbered as they start; two at once would be numbered by chance.
  std::mutex starting;
};

}

namespace nrs {

inline c10::intrusive_ptr<c10d::ProcessGroup> wrap(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    at::Device device,
    c10d::ProcessGroup::BackendType type,
    const c10::intrusive_ptr<c10d::Backend>& backend) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  if (device.is_cuda()) {
    group->setBoundDeviceId(device);
  }
  group->setBackend(device.type(), type, backend);
  group->setDefaultBackend(type);
  return group;
}

inline nrs_group* make_gloo(
    const nrs_store_callbacks* callbacks,
    void* state,
    int rank,
    int size,
    std::chrono::milliseconds timeout,
    const char* host,
    bool share) {
  auto exchanged = std::make_shared<Exchanged>();
  c10::intrusive_ptr<c10d::Store> store =
      c10::make_intrusive<RustStore>(callbacks, state, timeout, exchanged);
  const Inodes before = open_sockets();
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
  auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);

  auto group = std::make_unique<nrs_group>();
  group->health = std::make_shared<Health>();
  group->health->connections.find(before, exchanged->take(), static_cast<size_t>(size) - 1);
  group->backend = backend;
  group->timeout = timeout;
  group->share = share;
  group->group = wrap(
      store, rank, size, group->device, c10d::ProcessGroup::BackendType::GLOO, group->backend);
  return group.release();
}

// Starts one collective, watched: its failure ends the group at once, whoever waits for it or not,
// so that ranks which do not talk to the dead one learn of it from this one.
template <typename Start>
nrs_work* launch(nrs_group& group, Start&& start) {
  std::lock_guard<std::mutex> lock(group.starting);
  group.health->require_alive();
  c10::intrusive_ptr<c10d::Work> work;
  try {
    work = start(*group.backend);
    if (!group.device.is_cuda()) {
      work->getFuture()->addCallback([health = group.health](c10::ivalue::Future& future) {
        if (future.hasError()) {
          health->end(text_of(future.exception_ptr()), false);
        }
      });
    }
  } catch (...) {
    group.health->rethrow_as_failed_collective();
  }
  const auto wait = group.device.is_cuda() ? group.timeout : ::kNoTimeout;
  return new nrs_work{std::move(work), group.health, wait};
}

// Returns once the result is there for the host: with a timeout NCCL's wait blocks the thread,
// without one it would only order streams.
inline void wait(nrs_work& work) {
  try {
    if (!work.work->wait(work.timeout)) {
      throw Refusal(kCollective, "the collective was given up");
    }
  } catch (...) {
    work.health->rethrow_as_failed_collective();
  }
}

inline void abort(nrs_group& group, const std::string& reason) {
  group.health->end(reason, true);
  if (group.device.is_cuda()) {
    group.backend->abort();
  }
}

inline nrs_work* all_reduce(nrs_group& group, const at::Tensor& tensor, int op) {
  static constexpr c10d::ReduceOp::RedOpType kOps[] = {
      c10d::ReduceOp::SUM, c10d::ReduceOp::PRODUCT, c10d::ReduceOp::MIN, c10d::ReduceOp::MAX};
  return launch(group, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = kOps[op];
    options.timeout = group.timeout;
    return backend.allreduce(tensors, options);
  });
}

inline nrs_work* broadcast(nrs_group& group, const at::Tensor& tensor, int root) {
  return launch(group, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.timeout = group.timeout;
    return backend.broadcast(tensors, options);
  });
}

inline nrs_work* all_gather(nrs_group& group, at::Tensor output, at::Tensor input) {
  return launch(group, [&](c10d::Backend& backend) {
    c10d::AllgatherOptions options;
    options.timeout = group.timeout;
    return backend._allgather_base(output, input, options);
  });
}

inline nrs_work* barrier(nrs_group& group) {
  return launch(group, [&](c10d::Backend& backend) {
    c10d::BarrierOptions options;
    options.timeout = group.timeout;
    if (group.device.is_cuda()) {
      options.device = group.device;
      options.device_ids = {group.device.index()};
    }
    return backend.barrier(options);
  });
}

}  // namespace nrs
