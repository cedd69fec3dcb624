//! Devices.

use std::ffi::{CString, c_char};

use scrubjay::Device;
use scrubjay::device::{Choice, Listing};

use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::raw::{Info, Out, Text, versioned};
use crate::status::{Failure, Outcome};

/// `sj_device`.
pub struct DeviceObject {
    /// The device.
    pub device: Device,
    name: CString,
    why: CString,
}

impl Object for DeviceObject {
    const NAME: &'static str = "device";
}

/// A text of the library's for C.
pub fn c_text(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| Failure::argument(format!("`{}` holds a 0", text.escape_default())))
}

versioned! {
    /// `sj_device_info`.
    DeviceInfo as "sj_device_info" {
        name: Text = Text::NONE,
        why: Text = Text::NONE,
        threads: u64 = 0,
    }
}

entry! {
    /// Opens a device.
    fn sj_device_open(name: Text, threads: u64, device: NewHandle<DeviceObject>) {
        device.open()?;
        let choice = name.named::<Choice>("name of the device")?.unwrap_or_default();
        let threads = usize::try_from(threads).ok().filter(|&threads| threads <= 1 << 12);
        let threads = threads.ok_or_else(|| Failure::argument("threads: at most 4096 were expected"))?;
        let opened = Device::open(choice, threads)?;
        let (name, why) = (c_text(opened.name())?, c_text(opened.why())?);
        device.put(DeviceObject { device: opened, name, why })
    }

    /// The devices of the machine.
    fn sj_devices(json: Out<c_char>, size: usize, needed: Out<usize>) {
        json.put_whole(&Listing::new()?.json().to_string(), size, needed)
    }

    /// What a device is.
    fn sj_device_get_info(device: Handle<DeviceObject>, info: Info<DeviceInfo>) {
        let device = device.get()?;
        let (name, why) = (Text::of(&device.name), Text::of(&device.why));
        info.put(DeviceInfo { name, why, threads: device.device.threads() as u64, ..DeviceInfo::EMPTY })
    }

    /// Ends a handle.
    fn sj_device_free(device: Handle<DeviceObject>) {
        device.free()
    }
}
