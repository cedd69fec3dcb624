//! Tables from files, the graph of all their columns, and the chart of a selection.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use scrubjay::codec::{self, Blankets, Columns, Foci, FociOptions, Graph, Watch};
use scrubjay::data::table::{
    Categorical, Column, Decimal, Delimiter, Frame, Header, Missing, Table, TableOptions,
};
use scrubjay::{Device, report};

use crate::callbacks::Callbacks;
use crate::codec::{CFociOptions, FociStep, reason, steps_of, stopped_of};
use crate::device::{DeviceObject, c_text};
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::layout::Layout;
use crate::model::{count, texts};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::status::{BUFFER, Failure, Outcome};
use crate::tensor::{self, Tensor};

/// `sj_table`: columns of numbers of a file.
pub struct TableObject {
    frame: Frame,
    layout: Layout,
    /// The names of the file's columns, in the order asked for.
    names: Vec<CString>,
    note: Option<CString>,
}

impl Object for TableObject {
    const NAME: &'static str = "table";
}

/// `sj_graph`.
pub struct GraphObject {
    graph: Graph,
    json: CString,
    dot: CString,
}

impl Object for GraphObject {
    const NAME: &'static str = "graph";
}

versioned! {
    /// `sj_table_options`.
    CTableOptions as "sj_table_options" {
        categorical: In<Text> = In::NONE,
        categorical_count: u64 = 0,
        missing: Text = Text::NONE,
        na: In<Text> = In::NONE,
        na_count: u64 = 0,
        header: Text = Text::NONE,
        delimiter: Text = Text::NONE,
        decimal: Text = Text::NONE,
    }
}

versioned! {
    /// `sj_table_info`.
    TableInfo as "sj_table_info" {
        rows: u64 = 0,
        columns: u64 = 0,
        sources: u64 = 0,
        omitted: u64 = 0,
        note: Text = Text::NONE,
    }
}

versioned! {
    /// `sj_table_column`.
    TableColumn as "sj_table_column" {
        name: Text = Text::NONE,
        source: u64 = 0,
    }
}

versioned! {
    /// `sj_graph_info`.
    GraphInfo as "sj_graph_info" {
        columns: u64 = 0,
        edges: u64 = 0,
        interrupted: u64 = 0,
    }
}

impl CTableOptions {
    fn options(&self) -> Outcome<TableOptions> {
        let categorical =
            texts(self.categorical, self.categorical_count, ["categorical_count", "columns of categories"])?;
        let categorical = categorical.iter().map(|text| text.parse::<Categorical>());
        Ok(TableOptions {
            categorical: categorical.collect::<Result<_, _>>().map_err(Failure::argument)?,
            header: self.header.named::<Header>("header")?.unwrap_or_default(),
            delimiter: self.delimiter.parsed::<Delimiter>("delimiter")?,
            decimal: self.decimal.parsed::<Decimal>("decimal")?,
            na: texts(self.na, self.na_count, ["na_count", "words for a missing value"])?,
        })
    }
}

/// Searches in a thread of its own, so that C is called in the one that called; until it is cancelled.
fn search(
    device: &Device,
    data: &Columns,
    options: &FociOptions,
    watch: &Watch,
    (kept, known): (Option<Blankets>, BTreeMap<usize, Foci>),
    callbacks: &Callbacks,
) -> Outcome<Graph> {
    let mut done = known.len();
    let mut each = callbacks.each_of(data.p());
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let work = move || {
            codec::graph(device, data, options, &known, &move |column, blanket| {
                kept.as_ref().map_or(Ok(()), |kept| kept.write(column, blanket))?;
                let _ = tell.send(()); // who listens ends after this
                Ok(())
            })
        };
        let worker = std::thread::Builder::new().name("scrubjay-graph".into()).spawn_scoped(scope, work);
        let worker = worker.map_err(|e| Failure::argument(format!("a thread cannot be started: {e}")))?;
        for () in told {
            done += 1;
            if !watch.stopped() && each(done).is_err() {
                watch.stop();
            }
        }
        Ok(worker.join().unwrap_or_else(|panic| resume_unwind(panic))?)
    })
}

entry! {
    /// Fills in the defaults.
    fn sj_table_options_init(options: Info<CTableOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Reads columns of a table.
    fn sj_table_load(path: Text, columns: Text, options: Options<CTableOptions>, table: NewHandle<TableObject>) {
        table.open()?;
        let (path, options) = (Path::new(path.get("path")?), options.get()?);
        let missing = options.missing.named::<Missing>("missing")?.unwrap_or_default();
        let read = Table::read(path, &options.options()?)?;
        let columns: Vec<Column> = match columns.find("columns")? {
            Some(list) => read.find(list)?,
            None => read.all(),
        };
        let frame = read.frame(&columns, missing)?;
        table.put(TableObject {
            layout: Layout::new(&[frame.n, frame.p()], &[1, frame.n]),
            frame,
            names: columns.iter().map(|&column| c_text(read.name(column))).collect::<Outcome<_>>()?,
            note: read.layout().map(c_text).transpose()?,
        })
    }

    /// What a table is.
    fn sj_table_get_info(table: Handle<TableObject>, info: Info<TableInfo>) {
        let table = table.get()?;
        info.put(TableInfo {
            rows: table.frame.n as u64,
            columns: table.frame.p() as u64,
            sources: table.names.len() as u64,
            omitted: table.frame.omitted as u64,
            note: table.note.as_deref().map_or(Text::NONE, Text::of),
            ..TableInfo::EMPTY
        })
    }

    /// What a column is.
    fn sj_table_get_column(table: Handle<TableObject>, number: u64, column: Info<TableColumn>) {
        let table = table.get()?;
        let at = count(number, "column")?;
        let source = table.frame.spans.iter().position(|span| span.contains(&at));
        let named = source.and_then(|source| Some((source, table.names.get(source)?)));
        let Some((source, name)) = named else {
            return Err(Failure::argument(format!("column {number} of {}", table.frame.p())));
        };
        column.put(TableColumn { name: Text::of(name), source: source as u64, ..TableColumn::EMPTY })
    }

    /// A view of the values.
    fn sj_table_get_tensor(table: Handle<TableObject>, tensor: Out<Tensor>) {
        let (table, place) = (table.get()?, tensor.open("tensor")?);
        place.write(table.layout.view(&table.frame.values, "f64"));
        Ok(())
    }

    /// Ends a handle.
    fn sj_table_free(table: Handle<TableObject>) {
        table.free()
    }

    /// The blanket of every column.
    fn sj_foci_graph(
        device: Handle<DeviceObject>,
        data: In<Tensor>,
        names: In<Text>,
        options: Options<CFociOptions>,
        resume: Text,
        callbacks: Options<Callbacks>,
        graph: NewHandle<GraphObject>,
    ) {
        graph.open()?;
        let (device, options, callbacks) = (device.get()?, options.get()?, callbacks.get()?);
        let mut copy = vec![];
        let data = tensor::columns(&data, &mut copy)?;
        let names = match names.is_null() {
            true => (0..data.p()).map(|column| column.to_string()).collect(),
            false => texts(names, data.p() as u64, ["columns", "names of columns"])?,
        };
        let watch = Watch::default();
        let (initial, groups) = options.lists(data.p())?;
        let how = FociOptions { watch: Some(&watch), ..options.selection(&initial, &groups)? };
        let known = match resume.find("path of the finished columns")?.map(PathBuf::from) {
            Some(path) => {
                let values: Vec<f64> = (0..data.p()).flat_map(|column| data.column(column)).collect();
                let (kept, known) = Blankets::open(&path, &values, data.n(), &how)?;
                (Some(kept), known)
            }
            None => (None, BTreeMap::new()),
        };
        let found = search(&device.device, &data, &how, &watch, known, &callbacks)?;
        graph.put(GraphObject {
            json: c_text(&found.json(&names).to_string())?,
            dot: c_text(&found.dot(&names))?,
            graph: found,
        })
    }

    /// What a graph is.
    fn sj_graph_get_info(graph: Handle<GraphObject>, info: Info<GraphInfo>) {
        let graph = &graph.get()?.graph;
        info.put(GraphInfo {
            columns: graph.blankets.len() as u64,
            edges: graph.edges().len() as u64,
            interrupted: graph.blankets.iter().any(Option::is_none).into(),
            ..GraphInfo::EMPTY
        })
    }

    /// The blanket of a column.
    fn sj_graph_get_blanket(
        graph: Handle<GraphObject>,
        column: u64,
        steps: Out<FociStep>,
        size: u64,
        found: Out<u64>,
        stopped: Out<*const c_char>,
    ) {
        let (graph, places) = (graph.get()?, count(size, "size")?);
        let (found, stopped) = (found.open("found")?, stopped.wanted("stopped")?);
        let blankets = &graph.graph.blankets;
        let blanket = blankets.get(count(column, "column")?);
        let blanket = blanket.ok_or_else(|| Failure::argument(format!("column {column} of {}", blankets.len())))?;
        let list = blanket.as_ref().map(steps_of).unwrap_or_default();
        if list.len() > places {
            return Err(Failure::new(BUFFER, format!("{places} places for {} columns", list.len())));
        }
        steps.put_list(&list, places, "steps")?;
        found.write(list.len() as u64);
        if let Some(stopped) = stopped {
            let why = blanket.as_ref().map_or(codec::Stopped::Interrupted, |blanket| blanket.stopped);
            stopped.write(reason(why).as_ptr());
        }
        Ok(())
    }

    /// The graph as JSON.
    fn sj_graph_get_json(graph: Handle<GraphObject>, json: Out<*const c_char>) {
        let (graph, place) = (graph.get()?, json.open("json")?);
        place.write(graph.json.as_ptr());
        Ok(())
    }

    /// The graph for Graphviz.
    fn sj_graph_get_dot(graph: Handle<GraphObject>, dot: Out<*const c_char>) {
        let (graph, place) = (graph.get()?, dot.open("dot")?);
        place.write(graph.dot.as_ptr());
        Ok(())
    }

    /// Ends a handle.
    fn sj_graph_free(graph: Handle<GraphObject>) {
        graph.free()
    }

    /// The chart of a selection.
    fn sj_foci_plot(
        steps: In<FociStep>,
        names: In<Text>,
        number: u64,
        stopped: Text,
        svg: Out<c_char>,
        size: usize,
        needed: Out<usize>,
    ) {
        let steps = steps.list(count(number, "count")?, "steps")?;
        let names = texts(names, number, ["count", "names of the steps"])?;
        let found = FociStep::selection(steps, stopped_of(stopped)?);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        svg.put_whole(&report::steps(&names, &found, found.reason()), size, needed)
    }
}
