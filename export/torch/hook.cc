// The forward hook of one quantizer in the common case: plain values in a QuantTensor, struck by the stream, in the
// forward of a whole model. All else is left to the hook in Python (hwfault/injection/site_hook.py), whose rules these
// are; nothing is changed or counted before it is sure that this way goes to its end.
#include <ATen/SavedTensorHooks.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <optional>

#include "hook.h"
#include "module.h"
#include "plain.h"
#include "stream_site.h"
#include "zero_node.h"

namespace hwfault_torch {
namespace {

namespace py = pybind11;
namespace ag = torch::autograd;

struct Names {
  py::str counts{"counts"}, injection{"injection"}, state{"state"}, fast_forward{"fast_forward"}, fast_site{"fast_site"},
      numbers{"numbers"}, disable_quant{"disable_quant"}, is_on{"_is_quant_enabled"};
};
const Names& names() {
  static const Names* const all = new Names;  // lives until the process ends
  return *all;
}

PyObject* quant_tensor = nullptr;  // the class whose instances are struck here

// ---- how often an output is held

struct Counts {
  Py_ssize_t output, value;
  size_t uses;
  bool own;

  bool operator==(const Counts& other) const {
    return output == other.output && value == other.value && uses == other.uses && own == other.own;
  }
};
std::optional<Counts> unheld;  // those of outputs that nobody holds, as measured

Counts counts_of(PyObject* output, PyObject* value, const at::Tensor& x) {
  return {Py_REFCNT(output), Py_REFCNT(value), x.use_count(), owns_memory(x)};
}

// (noted, module, arguments, output): appends the counts of the output to a list; as a hook is called, to measure them.
PyObject* note_counts(PyObject*, PyObject* const* args, Py_ssize_t) {
  HANDLE_TH_ERRORS
  PyObject* const output = args[3];
  if (reinterpret_cast<PyObject*>(Py_TYPE(output)) == quant_tensor) {
    PyObject* const value = PyTuple_GET_ITEM(output, 0);
    const Counts found = counts_of(output, value, THPVariable_Unpack(value));
    py::handle(args[0]).attr("append")(py::make_tuple(found.output, found.value, found.uses, found.own));
  } else {
    py::handle(args[0]).attr("append")(py::tuple());
  }
  Py_RETURN_NONE;
  END_HANDLE_TH_ERRORS
}

// ---- what sites are asked about in each forward

// What all sites of an injection share in the present forward; asked anew where the `counts` of its Runs are others.
struct Forward {
  py::object runs;
  py::object counts = py::none();  // how often sites ran, by their names: a dict
  bool usable = false;
  py::object live;    // another object when other sites are struck, or by other faults
  unsigned long thread = 0;
  int64_t batch = 0;
  bool with_gradients = false, straight_through = false;
  uint64_t seed = 0;
  at::Tensor samples, parameters;  // the numbers of both, as far as they were asked for

  // Whether sites may be struck here at all.
  bool is_usable(PyObject* hook) {
    py::object now = runs.attr(names().counts);
    if (now.is(counts)) return usable;
    samples = parameters = at::Tensor();
    usable = false;
    const py::object told = py::handle(hook).attr(names().injection).attr(names().fast_forward)();
    counts = std::move(now);
    if (told.is_none()) return false;
    const auto all = py::reinterpret_borrow<py::tuple>(told);
    live = all[0];
    thread = all[1].cast<unsigned long>();
    batch = all[2].cast<int64_t>();
    with_gradients = all[3].cast<bool>();
    seed = all[4].cast<uint64_t>();
    straight_through = all[5].cast<bool>();
    return usable = true;
  }

  // The numbers of a batch, or of a parameter.
  const at::Tensor& numbers_of(PyObject* hook, bool batched) {
    at::Tensor& known = batched ? samples : parameters;
    if (!known.defined()) {
      const py::object of = batched ? py::object(py::int_(batch)) : py::object(py::none());
      known = py::handle(hook).attr(names().injection).attr(names().numbers)(of).cast<at::Tensor>();
    }
    return known;
  }
};

// One site's hook, and what was found out about it as long as the same is live.
struct Site {
  std::shared_ptr<Forward> forward;
  py::str name;
  py::object live;
  bool usable = false;
  bool batched = false, is_activation = false;
  std::vector<std::shared_ptr<StreamSite>> runs;  // each one that is known in a forward; none where values pass
  int64_t bits = 0;

  bool is_usable(PyObject* hook) {
    if (live.is(forward->live)) return usable;
    usable = false;
    const py::object told = py::handle(hook).attr(names().fast_site)();
    live = forward->live;
    if (told.is_none()) return false;
    const auto all = py::reinterpret_borrow<py::tuple>(told);
    batched = all[0].cast<bool>();
    is_activation = all[1].cast<bool>();
    bits = all[2].cast<int64_t>();
    runs = all[3].cast<std::vector<std::shared_ptr<StreamSite>>>();
    return usable = true;
  }

  // How often it ran in this forward; a parameter is the same in all runs.
  size_t ran() const {
    if (!batched) return 0;
    PyObject* const count = PyDict_GetItemWithError(forward->counts.ptr(), name.ptr());
    return count ? PyLong_AsSize_t(count) : 0;
  }
};

// The present run of a site.
struct Run {
  const Site* site;
  size_t number;

  const std::shared_ptr<StreamSite>& stream() const { return site->runs[number]; }
  bool batched() const { return site->batched; }
  Forward& forward() const { return *site->forward; }
  void note() const {
    if (!site->batched) return;
    const py::int_ count(number + 1);
    if (PyDict_SetItem(forward().counts.ptr(), site->name.ptr(), count.ptr()) < 0) throw python_error();
  }
};

constexpr const char* kSite = "hwfault_torch.Site";

Site* site_of(PyObject* hook) {
  const py::object state = py::handle(hook).attr(names().state);
  return static_cast<Site*>(PyCapsule_GetPointer(state.ptr(), kSite));
}

bool is_true(PyObject* of, const py::str& name) { return py::handle(of).attr(name).ptr() == Py_True; }

// An activation's quantizer may be off, and hand a QuantTensor through.
bool is_on(const Site& site, PyObject* proxy) {
  return !site.is_activation || (is_true(proxy, names().is_on) && !is_true(proxy, names().disable_quant));
}

// Whether the bit width in an output is the one that the plan strikes.
bool has_width(PyObject* width, int64_t bits) {
  if (!THPVariable_CheckExact(width)) return false;
  const at::Tensor& t = THPVariable_Unpack(width);
  return is_plain(t) && t.numel() == 1 && t.scalar_type() == at::kFloat &&
         *t.const_data_ptr<float>() == static_cast<float>(bits);
}

bool may_follow_hooks() { return !at::SavedTensorDefaultHooks::get_tls_state().stack.empty(); }

// A differentiable x that keeps its meaning for autograd when it is overwritten.
bool is_writable(PyObject* value, const at::Tensor& x) {
  return x.grad_fn() && !reinterpret_cast<THPVariable*>(value)->backward_hooks && !x.retains_grad();
}

// A new QuantTensor with another value.
PyObject* with_value(PyObject* output, at::Tensor value) {
  const Py_ssize_t n = PyTuple_GET_SIZE(output);
  py::tuple parts(n);
  parts[0] = py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(value)));
  for (Py_ssize_t i = 1; i < n; ++i) parts[i] = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(output, i));
  PyObject* const made = PyTuple_Type.tp_new(Py_TYPE(output), py::make_tuple(parts).ptr(), nullptr);
  if (!made) throw python_error();
  return made;
}

int64_t strike(const StreamSite& stream, const hwfault_shape& shape, const at::Tensor& source, const at::Tensor& out,
               const at::Tensor& scale, const at::Tensor& zero_point, uint64_t seed, const at::Tensor& samples) {
  std::optional<py::gil_scoped_release> others;
  if (source.numel() >= kWorthTheLock) others.emplace();
  return stream.strike(shape, source, out, scale, zero_point, seed, samples);
}

// Values that were struck by the operator that made them. Held weakly, so that no other tensor comes to lie in its place.
thread_local c10::weak_intrusive_ptr<c10::TensorImpl> struck_before =
    c10::weak_intrusive_ptr<c10::TensorImpl>(c10::intrusive_ptr<c10::TensorImpl>());

// Whether x was struck by the operator that made it; asked once.
bool was_struck(const at::Tensor& x) {
  const bool found = struck_before._unsafe_get_target() == x.unsafeGetTensorImpl();
  if (found) struck_before.reset();
  return found;
}

// The run of a hook's site where it can be struck here in the present forward; nothing where Python knows what is to be
// done.
std::optional<Run> present_run(PyObject* hook, PyObject* proxy) {
  if (followed() || ag::get_current_graph_task_id() != -1) return {};
  Site& site = *site_of(hook);
  Forward& forward = *site.forward;
  if (!forward.is_usable(hook) || !site.is_usable(hook)) return {};
  if (forward.thread != PyThread_get_thread_ident()) return {};
  if (forward.with_gradients && !at::GradMode::is_enabled()) return {};
  // of a part that is checkpointed Python notes which runs there are in it
  if (site.runs.size() > 1 && may_follow_hooks()) return {};
  const Run run{&site, site.ran()};
  if (run.number >= site.runs.size() || !is_on(site, proxy)) return {};
  return run;
}

// What values of a site are to be struck with, which then has run. They lie as x does, and are x if they are made.
std::optional<Struck> plan_strike(PyObject* hook, const Run& run, const at::Tensor& x, bool are_made,
                                  bool keeps_gradient, const at::Tensor& scale, const at::Tensor& zero_point,
                                  PyObject* width) {
  const StreamSite& stream = *run.stream();
  Forward& forward = run.forward();
  if (!has_width(width, run.site->bits)) return {};
  if (run.batched() && stream.samples_in(x) != forward.batch) return {};
  const auto shape = stream.shape_of(x, run.batched() ? forward.batch : 1, scale, zero_point);
  if (!shape) return {};
  if (!(are_made ? stream.tells_codes(*shape, x, scale, zero_point) : stream.always_tells_codes(x.scalar_type())))
    return {};
  // what autograd keeps is counted by checkpoints, and must be what Python's way keeps; values before are kept there
  if (keeps_gradient && (may_follow_hooks() || (stream.reads_stored && !forward.straight_through))) return {};
  const at::Tensor samples = forward.numbers_of(hook, run.batched());
  if (samples.numel() != shape->batch) return {};
  run.note();
  return Struck{run.stream(), *shape, forward.seed, samples, at::Tensor()};
}

// What the hook returns; nothing where Python's has to be called.
std::optional<PyObject*> strike_plain(PyObject* hook, PyObject* proxy, PyObject* given, PyObject* output) {
  if (reinterpret_cast<PyObject*>(Py_TYPE(output)) != quant_tensor) return {};
  PyObject* const value = PyTuple_GET_ITEM(output, 0);
  if (reinterpret_cast<PyObject*>(Py_TYPE(value)) != THPVariableClass) return {};
  const at::Tensor& x = THPVariable_Unpack(value);
  if (was_struck(x)) return Py_NewRef(Py_None);
  if (!is_plain(x) || x.dim() == 0 || !x.has_storage()) return {};
  const bool is_unheld = unheld && *unheld == counts_of(output, value, x);  // before anything else here holds it
  const std::optional<Run> run = present_run(hook, proxy);
  if (!run || output == PyTuple_GET_ITEM(given, 0)) return {};
  if (!run->stream()) {
    run->note();
    return Py_NewRef(Py_None);
  }

  PyObject* const scale_object = PyTuple_GET_ITEM(output, 1);
  PyObject* const zero_point_object = PyTuple_GET_ITEM(output, 2);
  if (!THPVariable_CheckExact(scale_object) || !THPVariable_CheckExact(zero_point_object)) return {};
  const at::Tensor& scale = THPVariable_Unpack(scale_object);
  const at::Tensor& zero_point = THPVariable_Unpack(zero_point_object);
  const bool straight_through = run->forward().straight_through;
  const bool keeps_gradient = x.requires_grad() && at::GradMode::is_enabled();
  auto struck = plan_strike(hook, *run, x, true, keeps_gradient, scale, zero_point, PyTuple_GET_ITEM(output, 3));
  if (!struck) return {};

  const bool stays = x.is_contiguous() || x.is_non_overlapping_and_dense();  // as it lies in memory
  const bool in_place = is_unheld && stays && (keeps_gradient ? is_writable(value, x) : !x.requires_grad());
  at::Tensor out = x;
  at::Tensor source = x;
  {
    const at::NoGradGuard no_grad;
    if (!in_place) {
      if (!stays) source = x.contiguous();
      out = source.is_same(x) ? at::empty_like(source) : source;
    }
    const int64_t no_numbers =
        strike(*struck->site, struck->shape, source, out, scale, zero_point, struck->seed, struck->samples);
    if (no_numbers && keeps_gradient && !straight_through)
      struck->left = out.isfinite().logical_not_().reshape(-1).nonzero().reshape(-1);
  }
  if (keeps_gradient) note_history(x, out, in_place, std::move(*struck), straight_through);
  return in_place ? Py_NewRef(Py_None) : with_value(output, std::move(out));
}

// (hook, proxy, arguments, output): what calling the hook with the last three returns.
PyObject* strike_output(PyObject*, PyObject* const* args, Py_ssize_t n) {
  HANDLE_TH_ERRORS
  if (n == 4) {
    if (const std::optional<PyObject*> done = strike_plain(args[0], args[1], args[2], args[3])) return *done;
  }
  return PyObject_Vectorcall(args[0], args + 1, static_cast<size_t>(n - 1), nullptr);
  END_HANDLE_TH_ERRORS
}

template <class F>
PyMethodDef method(const char* name, F f) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)), METH_FASTCALL, nullptr};
}
PyMethodDef strike_output_method = method("strike_output", strike_output);
PyMethodDef note_counts_method = method("note_counts", note_counts);

py::object function(PyMethodDef& of, const py::module_& m) {
  return py::reinterpret_steal<py::object>(PyCFunction_NewEx(&of, nullptr, m.attr("__name__").ptr()));
}

// The state of a hook, as a capsule.
py::capsule new_site(const std::shared_ptr<Forward>& forward, const py::str& name) {
  auto* const site = new Site{forward, name, py::none()};
  return py::capsule(site, kSite, [](void* at) { delete static_cast<Site*>(at); });
}

std::shared_ptr<Forward> new_forward(const py::object& runs) {
  auto made = std::make_shared<Forward>();
  made->runs = runs;
  return made;
}

void set_unheld(const py::object& counts) {
  unheld.reset();
  if (counts.is_none()) return;
  const auto all = py::reinterpret_borrow<py::tuple>(counts);
  unheld = Counts{all[0].cast<Py_ssize_t>(), all[1].cast<Py_ssize_t>(), all[2].cast<size_t>(), all[3].cast<bool>()};
}

std::shared_ptr<StreamSite> new_stream_site(std::vector<int64_t> program, int32_t bit_width, bool is_signed,
                                            int32_t representation, bool batched,
                                            const std::array<int64_t, 3>& axis, bool reads_stored,
                                            const std::array<int32_t, 4>& most_bits,
                                            const std::array<int32_t, 4>& sure_bits) {
  return std::make_shared<StreamSite>(std::move(program), bit_width, is_signed, representation, batched,
                                      Axis{axis[0], axis[1], axis[2]}, reads_stored, most_bits, sure_bits);
}

}  // namespace

std::optional<Inside> strike_inside(py::handle hook, py::handle proxy, const at::Tensor& x, bool keeps_gradient,
                                    const at::Tensor& scale, const at::Tensor& zero_point, py::handle width) {
  if (x.dim() == 0) return {};
  const std::optional<Run> run = present_run(hook.ptr(), proxy.ptr());
  // samples that take turns, and words whose faults depend on others, are struck on their own
  if (!run || !run->stream() || (run->batched() && !run->stream()->in_front())) return {};
  auto struck = plan_strike(hook.ptr(), *run, x, false, keeps_gradient, scale, zero_point, width.ptr());
  if (!struck) return {};
  return Inside{std::move(*struck), run->forward().straight_through};
}

void note_struck(const at::Tensor& values) { struck_before = values.getIntrusivePtr(); }

void add_hook(py::module_& m) {
  py::class_<StreamSite, std::shared_ptr<StreamSite>>(m, "StreamSite").def(py::init(&new_stream_site));
  py::class_<Forward, std::shared_ptr<Forward>>(m, "Forward").def(py::init(&new_forward));
  m.def("site", &new_site);
  m.def("set_unheld", &set_unheld);
  m.def("strike_class", [](const py::type& type) { quant_tensor = py::object(type).inc_ref().ptr(); });
  m.attr("strike_output") = function(strike_output_method, m);
  m.attr("note_counts") = function(note_counts_method, m);
}

}  // namespace hwfault_torch
