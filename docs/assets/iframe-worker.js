// Search in pages that are opened as files: browsers refuse a worker whose script is a file, but take one whose
// script is text. The build puts the text of the search's own worker here. Served pages use the worker as it is.
(function () {
  "use strict";
  var source = /* the worker */ null;
  if (location.protocol !== "file:" || source === null) return;
  var Native = window.Worker;
  window.Worker = function () {
    return new Native(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  };
})();
