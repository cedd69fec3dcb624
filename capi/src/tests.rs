//! The library's side of what C is promised: a panic behind every entry point is caught, structs have the layout of the header,
//! and the header declares what is exported.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char};

use crate::raw::Versioned;
use crate::status::{NAMES, PANIC};

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Panics within an entry point, where a test of this thread asked for it.
pub fn panic_where_asked() {
    if ASKED.take() {
        panic!("asked for by a test");
    }
}

unsafe extern "C" {
    fn sj_last_error(handle: *const u8, text: *mut c_char, size: usize, needed: *mut usize) -> i32;
}

/// The message of this thread's last failed call.
fn message() -> String {
    let mut text = [0; 256];
    // SAFETY: the text has the size that is stated.
    let status =
        unsafe { sj_last_error(std::ptr::null(), text.as_mut_ptr(), text.len(), std::ptr::null_mut()) };
    assert_eq!(status, 0);
    // SAFETY: the call put a 0 at the end.
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_string()
}

/// The entry points of `symbols.txt`, as functions without arguments: the panic comes before any argument is looked at.
macro_rules! entries {
    ($($name:ident)+) => {{
        unsafe extern "C" {
            $(fn $name(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64, i: u64, j: u64) -> i32;)+
        }
        // SAFETY: all arguments are integers or pointers, passed alike, and none of them is used.
        [$((stringify!($name), (|| unsafe { $name(0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }) as fn() -> i32)),+]
    }};
}

const SYMBOLS: &str = include_str!("../tests/symbols.txt");

#[test]
#[allow(clashing_extern_declarations)]
fn a_panic_behind_any_entry_point_becomes_a_status_and_the_next_call_is_as_ever() {
    let entries = entries! {
        sj_bench_count
        sj_bench_get_axis
        sj_bench_get_case
        sj_bench_run
        sj_block_free
        sj_block_get_gradient
        sj_block_get_size
        sj_block_get_values
        sj_block_new
        sj_callbacks_init
        sj_codec
        sj_codec_options_init
        sj_curvature_free
        sj_curvature_get_gradient
        sj_curvature_new
        sj_curvature_options_init
        sj_curvature_product
        sj_curvature_solve
        sj_data_options_init
        sj_delta_apply
        sj_delta_revert
        sj_device_free
        sj_device_get_info
        sj_device_open
        sj_devices
        sj_evaluate
        sj_export
        sj_files_init
        sj_foci
        sj_foci_graph
        sj_foci_options_init
        sj_foci_plot
        sj_forward
        sj_graph_free
        sj_graph_get_blanket
        sj_graph_get_dot
        sj_graph_get_info
        sj_graph_get_json
        sj_last_error
        sj_model_find_unit
        sj_model_free
        sj_model_from_memory
        sj_model_get_assumed
        sj_model_get_bytes
        sj_model_get_info
        sj_model_get_inspection
        sj_model_get_layer
        sj_model_open
        sj_model_options_init
        sj_model_save
        sj_observe
        sj_observe_options_init
        sj_outcome_free
        sj_outcome_get_info
        sj_outcome_get_model
        sj_outcome_get_note
        sj_outcome_get_page
        sj_outcome_get_receipt
        sj_outcome_get_report
        sj_outcome_get_samples
        sj_request_beside
        sj_request_estimate
        sj_request_free
        sj_request_get_info
        sj_request_get_page
        sj_request_indices
        sj_request_run
        sj_request_scrub
        sj_request_select
        sj_samples_free
        sj_samples_from_strings
        sj_samples_from_text
        sj_samples_get_info
        sj_samples_get_inspection
        sj_samples_get_note
        sj_samples_get_tensors
        sj_samples_load
        sj_samples_new
        sj_samples_to_dlpack
        sj_samples_write_image
        sj_scrub_options_init
        sj_session_cancel
        sj_session_free
        sj_session_get_info
        sj_session_get_model
        sj_session_new
        sj_session_open
        sj_session_options_init
        sj_session_uncancel
        sj_solve_options_init
        sj_status_name
        sj_table_free
        sj_table_get_column
        sj_table_get_info
        sj_table_get_tensor
        sj_table_load
        sj_table_options_init
        sj_tensor_from_dlpack
        sj_trace_free
        sj_trace_get_tensor
        sj_trace_to_dlpack
        sj_train
        sj_train_options_init
        sj_train_run
        sj_verification_free
        sj_verification_get_flag
        sj_verification_get_info
        sj_verification_get_measure
        sj_verification_get_note
        sj_verification_get_page
        sj_verification_get_report
        sj_verification_new
        sj_verification_open
        sj_verify_options_init
        sj_version
    };
    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, SYMBOLS.lines().collect::<Vec<_>>(), "every exported function is in this test");
    std::panic::set_hook(Box::new(|_| ())); // of the tests' process: the panics here are wanted
    for (name, call) in entries {
        ASKED.set(true);
        assert_eq!(call(), PANIC, "{name}");
        assert!(!ASKED.get(), "{name} did not run within the catch");
        if name != "sj_last_error" {
            assert!(message().contains(name) && message().contains("asked for by a test"), "{}", message());
        }
        if name != "sj_last_error"
            && name != "sj_version"
            && !name.ends_with("_free")
            && !["sj_bench_get_axis", "sj_devices"].contains(&name)
        {
            let status = call();
            assert!(status >= 100 && status != PANIC, "{name} with NULL: {status}");
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn the_header_declares_what_is_exported() {
    let header = include_str!("../../include/scrubjay.h");
    let declared: BTreeSet<&str> =
        header.split("SJ_API int32_t ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    assert_eq!(declared, SYMBOLS.lines().collect());
    for (code, name) in NAMES {
        let line = format!("{} = {code}", name.to_str().unwrap());
        assert!(header.contains(&format!("{line},")) || header.contains(&format!("{line} ")), "{line}");
    }
}

/// The lines of `layout.h` about a struct.
fn lines<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, usize)>, size: usize) -> Vec<String> {
    let fields = fields.into_iter().map(|(field, at)| format!("SJ_FIELD({name}, {field}, {at})"));
    fields.chain([format!("SJ_SIZE({name}, {size})")]).collect()
}

fn versioned<T: Versioned>() -> Vec<String> {
    lines(T::NAME, T::FIELDS.iter().map(|(field, start, _)| (*field, *start)), size_of::<T>())
}

#[test]
fn structs_have_the_layout_of_the_header() {
    let lists = [
        lines("sj_tensor", crate::tensor::FIELDS, size_of::<crate::tensor::Tensor>()),
        lines("sj_progress", crate::callbacks::FIELDS, size_of::<crate::callbacks::ProgressReport>()),
        lines("sj_foci_step", crate::codec::FIELDS, size_of::<crate::codec::FociStep>()),
        lines("sj_epoch", crate::training::FIELDS, size_of::<crate::training::CEpoch>()),
        lines("sj_class_score", crate::passes::FIELDS, size_of::<crate::passes::ClassScore>()),
        versioned::<crate::device::DeviceInfo>(),
        versioned::<crate::model::ModelOptions>(),
        versioned::<crate::model::ModelInfo>(),
        versioned::<crate::model::LayerInfo>(),
        versioned::<crate::model::Saved>(),
        versioned::<crate::samples::DataOptions>(),
        versioned::<crate::samples::SamplesInfo>(),
        versioned::<crate::passes::ObserveOptions>(),
        versioned::<crate::block::CurvatureOptions>(),
        versioned::<crate::block::SolveOptions>(),
        versioned::<crate::block::SolveReport>(),
        versioned::<crate::callbacks::Callbacks>(),
        versioned::<crate::session::SessionFiles>(),
        versioned::<crate::session::SessionOptions>(),
        versioned::<crate::session::SessionInfo>(),
        versioned::<crate::request::CScrubOptions>(),
        versioned::<crate::request::RequestInfo>(),
        versioned::<crate::request::CEstimate>(),
        versioned::<crate::outcome::OutcomeInfo>(),
        versioned::<crate::outcome::Receipt>(),
        versioned::<crate::files::DeltaRows>(),
        versioned::<crate::verification::VerifyOptions>(),
        versioned::<crate::verification::VerificationInfo>(),
        versioned::<crate::verification::Measure>(),
        versioned::<crate::verification::CFlag>(),
        versioned::<crate::codec::CodecOptions>(),
        versioned::<crate::codec::CodecResult>(),
        versioned::<crate::codec::CFociOptions>(),
        versioned::<crate::passes::CScores>(),
        versioned::<crate::training::CTrainOptions>(),
        versioned::<crate::table::CTableOptions>(),
        versioned::<crate::table::TableInfo>(),
        versioned::<crate::table::TableColumn>(),
        versioned::<crate::table::GraphInfo>(),
        versioned::<crate::bench::BenchCase>(),
        versioned::<crate::bench::BenchResult>(),
    ];
    let ours: BTreeSet<String> = lists.into_iter().flatten().collect();
    let stated = include_str!("../tests/layout.h").lines().filter(|line| line.starts_with("SJ_"));
    assert_eq!(ours, stated.map(String::from).collect());
}
