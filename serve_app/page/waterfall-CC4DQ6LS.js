import{g as e}from"./chunk-RLH3V6A7.js";import"./chunk-SQE76S5B.js";var r=n=>e("p",{children:"waterfall"});export{r as Waterfall};
