//! The only room that names every stage in order: text, tree, graph, keys, steps, layers, image, export.
