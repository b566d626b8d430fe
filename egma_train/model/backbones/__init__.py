"""One file a family of published models, all behind `backbone.Backbone`."""
