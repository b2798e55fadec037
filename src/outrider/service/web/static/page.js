// The page without this file can be read, and every form works. With it the page is live, and forms open in place.
import "./times.js";
import "./live.js";
import "./forms.js";
import "./upload.js";
import "./slide.js";
