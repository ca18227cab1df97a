import{g as o}from"./chunk-RLH3V6A7.js";import"./chunk-SQE76S5B.js";var t=e=>o("p",{children:"compare"});export{t as Compare};
