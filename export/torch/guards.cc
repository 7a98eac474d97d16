// Whether dicts still have the entries that they had: hwfault/fusion/guards.py, whose rules these are.
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "module.h"

namespace hwfault_torch {
namespace {

namespace py = pybind11;

class Guards {
 public:
  Guards(std::vector<py::dict> whole, std::vector<py::dict> counted, std::vector<std::pair<py::dict, py::str>> entries)
      : counted_(std::move(counted)), size_(size()) {
    for (py::dict& dict : whole) {
      std::vector<py::object> values;
      for (const auto& [key, value] : dict) values.push_back(py::reinterpret_borrow<py::object>(value));
      whole_.emplace_back(std::move(dict), std::move(values));
    }
    for (auto& [dict, key] : entries) {
      PyObject* interned = key.release().ptr();
      PyUnicode_InternInPlace(&interned);
      Entry entry{std::move(dict), py::reinterpret_steal<py::str>(interned), py::none()};
      entry.value = py::reinterpret_borrow<py::object>(present(entry));
      entries_.push_back(std::move(entry));
    }
  }

  // for Python's collector of cycles: what is guarded may hold the guards
  int visit(visitproc visit, void* arg) const {
    for (const auto& dict : counted_) Py_VISIT(dict.ptr());
    for (const auto& [dict, values] : whole_) {
      Py_VISIT(dict.ptr());
      for (const py::object& value : values) Py_VISIT(value.ptr());
    }
    for (const Entry& entry : entries_) {
      Py_VISIT(entry.dict.ptr());
      Py_VISIT(entry.value.ptr());
    }
    return 0;
  }
  void clear() {
    counted_.clear();
    whole_.clear();
    entries_.clear();
    size_ = -1;  // they hold no more
  }

  bool hold() const {
    if (size() != size_) return false;
    for (const auto& [dict, values] : whole_)
      if (!are(dict, values)) return false;
    for (const Entry& entry : entries_)
      if (!is(entry)) return false;
    return true;
  }

 private:
  struct Entry {
    py::dict dict;
    py::str key;
    py::object value;
  };

  static bool are(const py::dict& dict, const std::vector<py::object>& values) {
    if (static_cast<size_t>(PyDict_GET_SIZE(dict.ptr())) != values.size()) return false;
    PyObject *key = nullptr, *value = nullptr;
    Py_ssize_t at = 0;
    for (const py::object& held : values)
      if (!PyDict_Next(dict.ptr(), &at, &key, &value) || value != held.ptr()) return false;
    return true;
  }

  static PyObject* present(const Entry& entry) {
    PyObject* const value = PyDict_GetItemWithError(entry.dict.ptr(), entry.key.ptr());
    if (!value && PyErr_Occurred()) throw py::error_already_set();
    return value ? value : Py_None;
  }

  static bool is(const Entry& entry) {
    PyObject* const value = present(entry);
    if (value == entry.value.ptr()) return true;
    // numbers may be equal; of tensors only the same one will do
    if (!PyFloat_Check(value) && !PyLong_Check(value)) return false;
    const int equal = PyObject_RichCompareBool(value, entry.value.ptr(), Py_EQ);
    if (equal < 0) throw py::error_already_set();
    return equal == 1;
  }

  Py_ssize_t size() const {
    Py_ssize_t all = 0;
    for (const py::dict& dict : counted_) all += PyDict_GET_SIZE(dict.ptr());
    return all;
  }

  std::vector<py::dict> counted_;
  Py_ssize_t size_;
  std::vector<std::pair<py::dict, std::vector<py::object>>> whole_;
  std::vector<Entry> entries_;
};

// The guards of a Python object; null while it is being made.
Guards* guards_of(PyObject* object) {
  auto* const instance = reinterpret_cast<py::detail::instance*>(object);
  return static_cast<Guards*>(instance->get_value_and_holder().value_ptr());
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const Guards* const guards = guards_of(self);
  return guards ? guards->visit(visit, arg) : 0;
}

int clear(PyObject* self) {
  if (Guards* const guards = guards_of(self)) guards->clear();
  return 0;
}

}  // namespace

void add_guards(py::module_& m) {
  const py::custom_type_setup collected([](PyHeapTypeObject* heap_type) {
    PyTypeObject* const type = &heap_type->ht_type;
    type->tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->tp_traverse = traverse;
    type->tp_clear = clear;
  });
  py::class_<Guards>(m, "Guards", collected)
      .def(py::init<std::vector<py::dict>, std::vector<py::dict>, std::vector<std::pair<py::dict, py::str>>>())
      .def("__call__", &Guards::hold);
}

}  // namespace hwfault_torch
